"""From the form that an answer must have to a grammar in llguidance's Lark dialect."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from llguidance import LLMatcher

from manent.adapters.inference.closed_objects import closed
from manent.adapters.inference.tool_dialect import ToolDialect
from manent.domain.output_shape import FormatKind, OutputFormat, OutputShape, Tool, ToolChoice

_CALLS_MAX = 8
_OBJECT = '{"type":"object"}'
_JSON_STYLE = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""One way to write each value, that of Python's json.dumps: free white space lets a model write nothing else."""

Supported = Callable[[str], bool]
"""Whether a grammar can be enforced."""


def grammar_text(
    shape: OutputShape, dialect: ToolDialect, *, supported: Supported, token_of: Callable[[str], int | None]
) -> str | None:
    """The grammar of the answer; None where it is free.

    Calls are always JSON between the model's markers. Forced calls keep to the schema of every function whose schema
    can be enforced; calls that are free to come are ruled only where a function is strict.

    Args:
        shape: what is asked for.
        dialect: how the model marks calls.
        supported: of schemas that are not strict, which are enforced.
        token_of: the id of a marker that is a special token, which has no text that other tokens could spell.
    """
    tools = shape.callable_tools
    forced = shape.forced_tools
    if not forced and shape.format is None and not any(tool.strict for tool in tools):
        return None
    if not tools and shape.format is not None and shape.format.kind is FormatKind.GRAMMAR:
        return shape.format.definition
    if not tools and shape.format is not None and shape.format.kind is FormatKind.REGEX:
        return LLMatcher.grammar_from_regex(shape.format.definition)
    rules = ["%llguidance {}"]
    if forced:
        rules += [f"start: {_calls(shape, dialect)}", *_call_rules(forced, dialect, supported, token_of)]
    elif shape.format is None:
        rules += [*_text_or_calls(shape, dialect, token_of), *_call_rules(tools, dialect, supported, token_of)]
    elif tools:
        rules += [f"start: format | {_calls(shape, dialect)}", f"format: {_format(shape.format)}"]
        rules += _call_rules(tools, dialect, supported, token_of)
    else:
        rules += [f"start: {_format(shape.format)}"]
    return "\n".join(rules) + "\n"


def json_rule(schema: str) -> str:
    """A grammar's right side for the instances of a schema, given as JSON text."""
    value = json.loads(schema)
    if not isinstance(value, dict):
        value = {} if value is True else {"not": {}}  # false has no instances; llguidance says so
    return f"%json {json.dumps({**value, 'x-guidance': _JSON_STYLE})}"


def _format(asked: OutputFormat) -> str:
    match asked.kind:
        case FormatKind.JSON_OBJECT:
            return json_rule(_OBJECT)
        case FormatKind.JSON_SCHEMA:
            return json_rule(asked.definition)
        case FormatKind.CHOICE:
            return " | ".join(_text(choice) for choice in json.loads(asked.definition))
        case FormatKind.REGEX | FormatKind.GRAMMAR:
            raise ValueError(f"a {asked.kind} is a grammar of its own")


def _calls(shape: OutputShape, dialect: ToolDialect) -> str:
    several = shape.parallel and dialect.end and shape.tool_choice is not ToolChoice.NAMED
    return f'call ("\\n" call){{0,{_CALLS_MAX - 1}}}' if several else "call"


def _call_rules(
    tools: Sequence[Tool], dialect: ToolDialect, supported: Supported, token_of: Callable[[str], int | None]
) -> list[str]:
    names = " | ".join(f"call_{index}" for index in range(len(tools)))
    end = f' "\\n" {_marker(dialect.end, token_of)}' if dialect.end else ""
    rules = [f"call: {_marker(dialect.start, token_of)} body", f'body: "\\n" ( {names} ){end}']
    for index, tool in enumerate(tools):
        head = _text(f'{{"name": {json.dumps(tool.name)}, "arguments": ')
        rules += [f'call_{index}: {head} arguments_{index} "}}"', f"arguments_{index}: {_arguments(tool, supported)}"]
    return rules


def _text_or_calls(shape: OutputShape, dialect: ToolDialect, token_of: Callable[[str], int | None]) -> list[str]:
    """Free text, in which a start marker begins a call."""
    token = token_of(dialect.start)
    trigger = f"trigger[lazy]: TEXT {_text(dialect.start)}" if token is None else f"trigger: TEXT <[{token}]>"
    repeated = "called*" if shape.parallel and dialect.end else "called?"
    return [f"start: {repeated} TEXT", "TEXT: /(.|\\n)*/", trigger, "called: trigger body"]


def _arguments(tool: Tool, supported: Supported) -> str:
    rule = json_rule(_as_object(tool.parameters))
    return rule if tool.strict or supported(f"start: {rule}") else json_rule(_OBJECT)


def _as_object(schema: str) -> str:
    """Arguments are an object, also where the schema does not say so, of the members that it lists."""
    value: dict[str, Any] = closed(json.loads(schema))
    return json.dumps(value if "type" in value or "$ref" in value else {"type": "object", **value})


def _marker(text: str, token_of: Callable[[str], int | None]) -> str:
    token = token_of(text)
    return _text(text) if token is None else f"<[{token}]>"


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
