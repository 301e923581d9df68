"""Which parameters of Anthropic's messages Manent honors, accepts, or refuses, and which kinds of blocks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from manent.adapters.http.parameter_table import (
    Parameter,
    Parameters,
    accepted,
    check_type,
    honored,
    honored_members,
    refused,
)
from manent.adapters.http.wire_anthropic_requests import BLOCK_TYPES, SOURCE_TYPES

_INPUT: Sequence[Parameter] = (
    honored("model", "id or alias of a model of the registry"),
    honored("messages", "roles user, assistant and system; a string, or blocks; the last one is not the assistant's"),
    honored("system", "a string, or blocks of text, between which a blank line stands"),
    honored("tools", "up to 128 tools of the client's; Anthropic's own are left out"),
    honored("tool_choice", "auto, any, tool or none; disable_parallel_tool_use for one call at most"),
    honored(
        "thinking",
        "disabled is told to the chat template, and so is enabled, as the effort that budget_tokens comes nearest to: "
        "low below 4096, medium below 16384, else high; display 'omitted' leaves its text out of the answer",
    ),
    honored(
        "output_config",
        "format: a json_schema, enforced token by token; effort is told to the chat template, as reasoning_effort is",
    ),
    honored("output_format", "the older name of output_config.format"),
    accepted("cache_control", "a hint about caching, which no answer depends on; also on blocks and tools"),
    accepted("context_management", "a hint about what the model need not see again; truncation may leave messages out"),
    accepted("speed", "there is one speed"),
)
_REFUSED: Sequence[Parameter] = (
    refused("container", "no code is executed"),
    refused("mcp_servers", "Manent calls no servers of tools", []),
)

COUNT_PARAMETERS: Sequence[Parameter] = Parameters((*_INPUT, *_REFUSED))

MESSAGE_PARAMETERS: Sequence[Parameter] = Parameters(
    (
        *_INPUT,
        honored("max_tokens", "at least 1; an upper bound, since the window may have less room"),
        honored("stop_sequences", "up to 64; the answer tells which one ended it"),
        honored("temperature", "0 to 2; 0 is greedy"),
        honored("top_p", "above 0, up to 1"),
        honored("top_k", "only the so many most probable tokens; 0 and -1 are off"),
        honored("stream", "server-sent events"),
        honored("metadata", "user_id, recorded with the completion"),
        honored("session_id", "Manent's: makes the call part of a session"),
        honored("session_mode", "Manent's: how messages relate to the session's history (auto, append, strict)"),
        honored("truncation", "Manent's: 'auto' leaves the oldest messages out where needed"),
        honored("store", "Manent's: true has the content recorded also without a session"),
        honored("seed", "Manent's: a 64-bit integer"),
        honored("priority", "Manent's: 'interactive' (default), or 'batch', which waits for the others"),
        honored(
            "deterministic", "Manent's: true has it generated alone and without a prefix cache, to be verified later"
        ),
        honored("timeout_s", "Manent's: above 0; seconds from arrival after which the completion fails with 504"),
        accepted("service_tier", "there is one tier, and every answer says that it was the standard one"),
        accepted("inference_geo", "the answer is made where the server is"),
        accepted("diagnostics", "usage tells how many tokens came from a cache"),
        *_REFUSED,
    )
)

BLOCK_PARAMETERS: Sequence[Parameter] = (
    honored("text", "text"),
    honored("image", "of a user: source base64, or url (a data URL; an address where that is allowed)"),
    honored("tool_use", "of the assistant: id, name and input"),
    honored("tool_result", "of a user: tool_use_id of a call that waits for it, content (a string, or text), is_error"),
    honored("thinking", "of the assistant; the model's template decides whether it is shown it"),
    accepted("redacted_thinking", "nobody but Anthropic can read it"),
    accepted("further members", "citations, cache_control, signatures and whatever else a block has"),
    refused("all other types", "documents and search results as text; results of Anthropic's own tools not at all"),
)


def honored_message(body: Mapping[str, Any], table: Sequence[Parameter]) -> dict[str, Any]:
    """What of a request is honored.

    Raises:
        RequestRefused: a parameter or a block is unknown, or asks for what is not supported; ``param`` is its path.
    """
    found = honored_members(body, table)
    messages = found.get("messages")
    for index, message in enumerate(messages if isinstance(messages, list) else ()):
        for path, block in _blocks(message, f"messages[{index}]"):
            check_type(block, path, BLOCK_TYPES, "block")
            for inner_path, inner in _blocks(block, path):
                check_type(inner, inner_path, ("text", "image"), "block of a tool's result")
            if block.get("type") == "image" and isinstance(source := block.get("source"), dict):
                check_type(source, f"{path}.source", SOURCE_TYPES, "source of images")
    return found


def _blocks(members: Any, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    content = members.get("content") if isinstance(members, dict) else None
    for number, block in enumerate(content if isinstance(content, list) else ()):
        if isinstance(block, dict):
            yield f"{path}.content[{number}]", block
