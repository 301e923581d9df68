"""From pydantic's verdict to OpenAI's: one error, with the path of the parameter and what would be right."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from manent.adapters.http.errors import RequestRefused
from manent.adapters.http.wire import Wire
from manent.adapters.http.wire_requests import TAG_OPEN

Model = TypeVar("Model", bound=Wire)

WRONG_TYPE = frozenset({"int_from_float", "string_unicode", "union_tag_invalid", "union_tag_not_found"})
JSON_TYPES = {
    bool: "a boolean",
    int: "a number",
    float: "a number",
    str: "a string",
    list: "an array",
    dict: "an object",
}
VALUE_CHARS_MAX = 80


def validated(model: type[Model], members: Mapping[str, Any]) -> Model:
    """``members`` as a ``model``.

    Raises:
        RequestRefused: they are not one; the first mistake is told.
    """
    try:
        return model.model_validate(members)
    except ValidationError as error:
        raise _refusal(error.errors(include_url=False)[0]) from None


def path_of(location: tuple[int | str, ...]) -> str:
    """A location as OpenAI writes it: ``messages[0].content[1].text``."""
    path = ""
    for step in location:
        if isinstance(step, int):
            path += f"[{step}]"
        elif not step.startswith(TAG_OPEN):
            path += f".{step}" if path else step
    return path


def _refusal(mistake: ErrorDetails) -> RequestRefused:
    kind, value = mistake["type"], mistake["input"]
    param = path_of(mistake["loc"])
    if kind == "missing":
        return RequestRefused("missing_required_parameter", f"Missing required parameter: '{param}'.", param=param)
    if kind.endswith("_type") or kind in WRONG_TYPE:
        found = JSON_TYPES.get(type(value), "null")
        wanted = _wanted(kind, mistake["msg"], param)
        return RequestRefused("invalid_type", f"Invalid type for '{param}': {wanted}, but got {found}.", param=param)
    if kind == "too_short":
        return RequestRefused("invalid_value", f"Invalid value for '{param}': it is empty.", param=param)
    if isinstance(value, list | dict):
        return RequestRefused("invalid_value", f"Invalid value for '{param}': {mistake['msg']}.", param=param)
    shown = repr(value)
    shown = shown if len(shown) <= VALUE_CHARS_MAX else f"{shown[:VALUE_CHARS_MAX]}…"
    return RequestRefused("invalid_value", f"Invalid value for '{param}': {shown}. {mistake['msg']}.", param=param)


def _wanted(kind: str, message: str, param: str) -> str:
    if kind.startswith("union_tag"):
        return f"expected a string or an {'object' if param == 'tool_choice' else 'array'}"
    if kind == "string_unicode":
        return "expected a string of Unicode characters"
    if kind in {"model_type", "model_attributes_type", "dict_type"}:
        return "expected an object"
    return f"expected {message.removeprefix('Input should be ')}"
