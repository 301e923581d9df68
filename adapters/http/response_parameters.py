"""Which parameters of OpenAI's responses and conversations Manent honors, accepts, or refuses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from manent.adapters.http.errors import RequestRefused
from manent.adapters.http.parameter_table import Parameter, Treatment, check_type, honored_members
from manent.adapters.http.wire_response_items import ITEM_TYPES, PART_TYPES


def _rows(
    treatment: Treatment, says: Mapping[str, str], neutral: Mapping[str, tuple[Any, ...]] | None = None
) -> Sequence[Parameter]:
    values = neutral or {}
    return [
        Parameter(name=name, treatment=treatment, says=text, neutral=values.get(name, ()))
        for name, text in says.items()
    ]


_INPUT = {
    "model": "id or alias of a model of the registry",
    "input": "a string, which a user says, or items; without it, the unanswered end of the conversation is answered",
    "instructions": "what the model sees before everything; of this request alone, and no part of the conversation",
    "previous_response_id": "the stored response to go on from; two that go on from the same one are a fork",
    "conversation": "the id of a conversation (or session) that exists, or an object with its id",
    "tools": "up to 128: functions, custom tools (as functions with one text); the others are told back and not used",
    "tool_choice": "none, auto, required, allowed_tools, or the function or custom tool that must be called",
    "parallel_tool_calls": "false for one call at most",
    "text": "format: text, json_object or json_schema, enforced token by token; verbosity is without effect",
    "truncation": "'auto' leaves the oldest messages out where needed",
    "reasoning": "effort is told to the chat template, as reasoning_effort is; summary is told back",
}

INPUT_PARAMETERS: Sequence[Parameter] = (
    *_rows(Treatment.HONORED, _INPUT),
    *_rows(Treatment.ACCEPTED, {"personality": "models have their own"}),
)

RESPONSE_PARAMETERS: Sequence[Parameter] = (
    *_rows(
        Treatment.HONORED,
        _INPUT
        | {
            "max_output_tokens": "at least 1; an upper bound, since the window may have less room",
            "temperature": "0 to 2; 0 is greedy",
            "top_p": "above 0, up to 1",
            "top_logprobs": "0 to 20 most probable tokens with each; above 0 it implies their include",
            "include": "message.output_text.logprobs; of the others there is nothing to include",
            "metadata": "up to 16 pairs, recorded with the response",
            "store": "true without it; false is recorded without content, and cannot be asked for again",
            "background": "true answers once the response is recorded, and generates whoever leaves; needs store",
            "stream": "server-sent events, each with its sequence_number",
            "stream_options": "include_obfuscation, without effect",
            "user": "recorded with the response",
            "session_id": "Manent's: the conversation, started where it does not exist",
            "seed": "Manent's: a 64-bit integer",
            "stop": "Manent's: a string, or up to 4",
            "top_k": "Manent's, after vLLM: only the so many most probable tokens; 0 and -1 are off",
            "min_p": "Manent's, after vLLM: only tokens at least so probable, as a share of the most probable one",
            "frequency_penalty": "-2 to 2, times how often the token stands in the answer so far",
            "presence_penalty": "-2 to 2, once for each token that stands in the answer so far",
            "priority": "Manent's: 'interactive' (default), or 'batch', which waits for the others",
            "deterministic": "Manent's: true has it generated alone and without a prefix cache, to be verified later",
            "timeout_s": "Manent's: above 0; seconds from arrival after which the response fails",
        },
    ),
    *_rows(
        Treatment.ACCEPTED,
        {
            "max_tool_calls": "told back; it bounds calls of OpenAI's own tools, of which there are none",
            "safety_identifier": "told back; a hint to OpenAI's own moderation",
            "prompt_cache_key": "told back; a hint about caching, which no answer depends on",
            "prompt_cache_retention": "told back; a hint about caching, which no answer depends on",
            "prompt_cache_options": "a hint about caching, which no answer depends on",
            "access_programs": "OpenAI's own",
            "background_options": "background responses begin at once",
            "client_metadata": "what some agents tell OpenAI of themselves",
            "image": "images are read as they are",
        },
    ),
    *_rows(
        Treatment.REFUSED,
        {
            "service_tier": "there is one tier",
            "context_management": "responses are not compacted; truncation may leave messages out",
            "prompt": "there are no stored prompt templates",
            "moderation": "Manent does not moderate",
        },
        {"service_tier": ("auto", "default"), "context_management": ([],)},
    ),
)

ITEM_PARAMETERS: Sequence[Parameter] = (
    *_rows(
        Treatment.HONORED,
        {
            "message": "role user, assistant, system or developer; a string, or parts",
            "function_call": "call_id, name and arguments; with what stands before it, a message of the assistant's",
            "function_call_output": "call_id of a call that waits for it, and its output: a string, or parts of text",
            "custom_tool_call": "call_id, name and input",
            "custom_tool_call_output": "as function_call_output",
            "reasoning": "content or, without it, summary; the model's template decides whether it is shown it",
            "item_reference": "the id of an item of the conversation, or of one that any stored response put out",
        },
    ),
    *_rows(Treatment.ACCEPTED, {"further members": "ids, statuses, annotations and whatever else an item has"}),
    *_rows(Treatment.REFUSED, {"all other types": "they belong to tools that Manent does not have"}),
)

ITEM_PART_PARAMETERS: Sequence[Parameter] = (
    *_rows(
        Treatment.HONORED,
        {
            "input_text": "text; output_text, text, summary_text and reasoning_text are the same",
            "input_image": "image_url is a data: URL, or another where MANENT_IMAGE_URLS allows it; detail is kept",
        },
    ),
    *_rows(Treatment.ACCEPTED, {"further members": "annotations, log probabilities and whatever else a part has"}),
    *_rows(Treatment.REFUSED, {"all other types": "files, audio, refusals"}),
)
TOOL_PARAMETERS: Sequence[Parameter] = (
    *_rows(
        Treatment.HONORED,
        {
            "function": "name, description, parameters; strict has its arguments enforced",
            "custom": "name and description, as a function with one text; a grammar is told to the model, not enforced",
        },
    ),
    *_rows(Treatment.ACCEPTED, {"all other types": "told back, and refused only where tool_choice asks for one"}),
)

CONVERSATION_PARAMETERS: Sequence[Parameter] = _rows(
    Treatment.HONORED, {"items": "up to 20 that it begins with", "metadata": "up to 16 pairs"}
)
CONVERSATION_UPDATE_PARAMETERS: Sequence[Parameter] = _rows(
    Treatment.HONORED, {"metadata": "replaces all of it; null is none"}
)
ITEMS_PARAMETERS: Sequence[Parameter] = _rows(Treatment.HONORED, {"items": "1 to 20, in their order"})


def honored_response(body: Mapping[str, Any], table: Sequence[Parameter], *, items_max: int) -> dict[str, Any]:
    """What of a request for a response is honored.

    Raises:
        RequestRefused: a parameter is unknown, or asks for what is not supported; ``param`` is its path.
    """
    honored = honored_members(body, table)
    check_items(honored.get("input"), "input", items_max=items_max)
    return honored


def honored_items(body: Mapping[str, Any], table: Sequence[Parameter]) -> dict[str, Any]:
    """What of a request with ``items`` is honored; raises as ``honored_response``."""
    honored = honored_members(body, table)
    check_items(honored.get("items"), "items", items_max=len(honored.get("items") or ()))
    return honored


def check_items(items: object, path: str, *, items_max: int) -> None:
    """Refuse too many items, and by their names items and parts of kinds that are not supported."""
    if not isinstance(items, list):
        return
    if len(items) > items_max:
        raise RequestRefused(
            "invalid_value", f"{path} has {len(items)} items; at most {items_max} are allowed", param=path
        )
    for index, item in enumerate(items):
        if isinstance(item, dict):
            check_type(item, f"{path}[{index}]", ITEM_TYPES, "item")
            for member in ("content", "output"):
                parts = item.get(member)
                for number, part in enumerate(parts if isinstance(parts, list) else ()):
                    if isinstance(part, dict):
                        check_type(part, f"{path}[{index}].{member}[{number}]", PART_TYPES, "part")
