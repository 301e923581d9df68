"""Which parameters of OpenAI's chat completions Manent honors, accepts, or refuses: the tables, and their judges.

Nothing is ignored in silence. A parameter that Manent cannot honor is refused by name, unless its value is OpenAI's own
way of asking for nothing (null, an empty list, the documented default). The documentation is made from these tables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from manent.adapters.http.parameter_table import (
    Parameter,
    Parameters,
    honored_members,
    unsupported,
)
from manent.adapters.http.parameter_table import accepted as _accepted
from manent.adapters.http.parameter_table import honored as _honored
from manent.adapters.http.parameter_table import refused as _refused
from manent.adapters.http.parameters_of_others import FOREIGN_PARAMETERS

CHAT_PARAMETERS: Sequence[Parameter] = Parameters(
    (
        _honored("model", "id or alias of a model of the registry"),
        _honored("messages", "every role but function, which tool replaced; text, and images in a user's messages"),
        _honored("temperature", "0 to 2; 0 is greedy"),
        _honored("top_p", "above 0, up to 1"),
        _honored("max_completion_tokens", "at least 1, of each choice"),
        _honored("max_tokens", "the older name of max_completion_tokens"),
        _honored("stop", "a string, or up to 4"),
        _honored("stop_token_ids", "Manent's, after vLLM: up to 64 token ids that end the answer, and are not shown"),
        _honored("seed", "a 64-bit integer; with n above 1 each choice has its own noise"),
        _honored("n", "1 to 8 choices that share the evaluation of the prompt; 1 in a session"),
        _honored("top_k", "Manent's, after vLLM: only the so many most probable tokens; 0 and -1 are off"),
        _honored(
            "min_p",
            "Manent's, after vLLM: only tokens at least so probable, as a share of the most probable one; 0 is off",
        ),
        _honored("frequency_penalty", "-2 to 2, times how often the token stands in the answer so far"),
        _honored("presence_penalty", "-2 to 2, once for each token that stands in the answer so far"),
        _honored(
            "repetition_penalty",
            "Manent's, after vLLM: above 0, up to 2; divides positive logits of the tokens of prompt and answer, and "
            "multiplies negative ones; 1 is off",
        ),
        _honored("logit_bias", "up to 1024 token ids (as strings), each with -100 to 100"),
        _honored("logprobs", "true gives each shown token's log probability, before biases, penalties and temperature"),
        _honored("top_logprobs", "0 to 20 most probable tokens with each; needs logprobs"),
        _honored("priority", "Manent's: 'interactive' (default), or 'batch', which waits for the others"),
        _honored(
            "deterministic", "Manent's: true has it generated alone and without a prefix cache, to be verified later"
        ),
        _honored("timeout_s", "Manent's: above 0; seconds from arrival after which the completion fails with 504"),
        _honored("stream", "server-sent events"),
        _honored("stream_options", "include_usage"),
        _honored(
            "background", "true has it generated to its end also where its client leaves; its stream can be resumed"
        ),
        _honored("store", "true has the content recorded also without a session"),
        _honored("metadata", "up to 16 pairs, recorded with the completion"),
        _honored("user", "recorded with the completion"),
        _honored("session_id", "Manent's: makes the call part of a session"),
        _honored("conversation", "another name of session_id, as responses have it: an id, or an object with it"),
        _honored("session_mode", "Manent's: how messages relate to the session's history (auto, append, strict)"),
        _honored("truncation", "Manent's, after OpenAI Responses: 'auto' leaves the oldest messages out where needed"),
        _honored(
            "response_format", "text, json_object or json_schema: enforced token by token, also where strict is false"
        ),
        _honored("structured_outputs", "Manent's, after vLLM: one of regex, choice and grammar (llguidance's Lark)"),
        _honored("tools", "up to 128 functions; strict ones have their arguments enforced"),
        _honored("tool_choice", "none, auto, required, or the function that must be called; needs tools"),
        _honored("parallel_tool_calls", "false for one call at most"),
        _honored(
            "reasoning_effort",
            "told to the chat template (as reasoning_effort, and as enable_thinking: false for none and minimal); "
            "without effect where the template knows neither",
        ),
        _accepted("safety_identifier", "a hint to OpenAI's own moderation"),
        _accepted("prompt_cache_key", "a hint about caching, which no answer depends on"),
        _accepted("prompt_cache_retention", "a hint about caching, which no answer depends on"),
        _accepted("prompt_cache_options", "a hint about caching, which no answer depends on"),
        _accepted("service_tier", "there is one tier, and every answer says that it was the default one"),
        _accepted("verbosity", "no model of the registry has it"),
        _accepted("prediction", "a hint that makes OpenAI's answers faster, and no other ones"),
        _refused("modalities", "only text is generated", ["text"]),
        _refused("functions", "OpenAI replaced it by tools", []),
        _refused("function_call", "OpenAI replaced it by tool_choice", "none", "auto"),
        _refused("audio", "audio is not supported"),
        _refused("web_search_options", "Manent does not reach the web"),
        _refused("moderation", "Manent does not moderate"),
        _accepted("keep_alive", "Ollama's hint about memory; a model's entry in the registry says how long it stays"),
        _accepted("cache_prompt", "llama.cpp's hint about caching, which no answer depends on"),
        *(_refused(name, says, *neutral) for name, says, neutral in FOREIGN_PARAMETERS),
    )
)

STREAM_OPTIONS: Sequence[Parameter] = Parameters(
    (
        _honored("include_usage", "a last chunk with the usage"),
        _accepted("include_obfuscation", "pads chunks against observers of the network; Manent does not pad"),
    )
)

# Clients send back the assistant's message as they got it, with all the fields that were empty in it.
MESSAGE_PARAMETERS: Sequence[Parameter] = Parameters(
    (
        _honored("role", "system, developer, user, assistant or tool"),
        _honored("content", "a string, or parts of text and, in a user's message, images"),
        _honored("name", "the speaker's name"),
        _honored("tool_calls", "the calls that the assistant asked for; arguments of up to 256 KiB each"),
        _honored("tool_call_id", "the call that a tool message answers"),
        _honored(
            "reasoning_content", "what the assistant thought; the model's template decides whether it is shown it"
        ),
        _honored("reasoning", "the newer vLLM's name of reasoning_content"),
        _refused("function_call", "OpenAI replaced it by tool_calls"),
        _refused("audio", "audio is not supported"),
        _refused("refusal", "refusals are not supported"),
        _refused("annotations", "annotations are not supported", []),
        _accepted("parsed", "what a client's parse() made of the content, sent back with it"),
        _accepted("provider_specific_fields", "LiteLLM's, sent back with an answer"),
        _accepted("reasoning_details", "OpenRouter's form of reasoning_content; send that"),
    )
)

PART_PARAMETERS: Sequence[Parameter] = Parameters(
    (
        _honored("type", "text or image_url"),
        _honored("text", "the text"),
        _honored("image_url", "of type image_url: the image"),
        _accepted("cache_control", "Anthropic's hint about caching, which no answer depends on"),
    )
)

IMAGE_PARAMETERS: Sequence[Parameter] = (
    _honored("url", "a data URL in base64: PNG, JPEG, WebP or GIF, not animated; or an address, where that is allowed"),
    _honored("detail", "auto, low, high or original; recorded, and left to the model's own choice of resolution"),
)

SESSION_PARAMETERS: Sequence[Parameter] = (
    _honored("session_id", "an id of your own; without one it is given"),
    _honored("metadata", "up to 16 pairs"),
    _honored("ttl_s", "it expires so many seconds after its last event; without it, never"),
    _honored("messages", "what the session begins with"),
)

SESSION_UPDATE_PARAMETERS: Sequence[Parameter] = (
    _honored("metadata", "replaces all of it; null leaves it"),
    _honored("ttl_s", "seconds; null is for ever"),
)

STORED_PARAMETERS: Sequence[Parameter] = (_honored("metadata", "replaces all of it; null leaves none"),)

FORK_PARAMETERS: Sequence[Parameter] = (
    _honored("at_version", "the version whose past is shared; without it, the session as it stands"),
    _honored("session_id", "the fork's id; without one it is given"),
    _honored("metadata", "up to 16 pairs"),
)

RERUN_PARAMETERS: Sequence[Parameter] = (
    _honored("from_version", "what follows this version is generated again; 1 is everything"),
    _honored("model", "id or alias; without it, the model that answered each turn"),
    _honored("temperature", "without it, as it was recorded for each turn"),
    _honored("top_p", "without it, as it was recorded"),
    _honored("max_tokens", "without it, as it was recorded, or less where the window has no room for it"),
    _honored("seed", "without it, as it was recorded"),
    _honored("stop", "without it, as it was recorded"),
    _honored("session_id", "the rerun's id; without one it is given"),
)

VERIFY_PARAMETERS: Sequence[Parameter] = (
    _honored("other_versions", "true reruns it in spite of other versions of the software, or another device"),
)

REFUSED_ROLES = {"function": "OpenAI replaced it by tool"}
REFUSED_PARTS = {
    "input_audio": "audio is not supported",
    "file": "files are not supported yet",
    "refusal": "refusals are not supported",
}


def honored_chat(body: Mapping[str, Any]) -> dict[str, Any]:
    """What of a chat request is honored.

    Raises:
        RequestRefused: a parameter is unknown, or asks for what is not supported; ``param`` is its path.
    """
    honored = honored_members(body, CHAT_PARAMETERS)
    if isinstance(honored.get("stream_options"), dict):
        honored["stream_options"] = honored_members(honored["stream_options"], STREAM_OPTIONS, path="stream_options")
    return _with_honored_messages(honored)


def honored_session(body: Mapping[str, Any]) -> dict[str, Any]:
    """What of a request for a session is honored.

    Raises:
        RequestRefused: as ``honored_chat``.
    """
    return _with_honored_messages(honored_members(body, SESSION_PARAMETERS))


def honored_update(body: Mapping[str, Any]) -> dict[str, Any]:
    """What of a request to change a session is honored; raises as ``honored_chat``."""
    return honored_members(body, SESSION_UPDATE_PARAMETERS)


def honored_message(body: Mapping[str, Any]) -> dict[str, Any]:
    """What of a request to add a message is honored; raises as ``honored_chat``."""
    return _honored_message(body, "")


def _with_honored_messages(honored: dict[str, Any]) -> dict[str, Any]:
    messages = honored.get("messages")
    if isinstance(messages, list):
        honored["messages"] = [
            _honored_message(message, f"messages[{i}].") if isinstance(message, dict) else message
            for i, message in enumerate(messages)
        ]
    return honored


def _honored_message(message: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    role = message.get("role")
    if isinstance(role, str) and role in REFUSED_ROLES:
        raise unsupported(f"{prefix}role", REFUSED_ROLES[role], ())
    honored = honored_members(message, MESSAGE_PARAMETERS, path=prefix.removesuffix("."))
    parts = honored.get("content")
    if isinstance(parts, list):
        honored["content"] = [_honored_part(part, f"{prefix}content[{i}]") for i, part in enumerate(parts)]
    return honored


def _honored_part(part: Any, path: str) -> Any:
    if not isinstance(part, dict):
        return part
    kind = part.get("type")
    if isinstance(kind, str) and kind in REFUSED_PARTS:
        raise unsupported(f"{path}.type", REFUSED_PARTS[kind], ())
    honored = honored_members(part, PART_PARAMETERS, path=path)
    if isinstance(honored.get("image_url"), dict):
        honored["image_url"] = honored_members(honored["image_url"], IMAGE_PARAMETERS, path=f"{path}.image_url")
    return honored
