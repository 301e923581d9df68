"""How a model writes tool calls: between which markers, and how what stands between them is read."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from manent.domain.messages import ToolCall, whole_characters
from manent.domain.output_shape import Tool

Parse = Callable[[str, Any], Any]


class Unfinished(ValueError):
    """The text ends within a JSON string: what looked like the end of the call is part of an argument."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolDialect:
    """The markers and the parser; ``end`` is empty where a call lasts until the answer ends.

    ``native`` says that the model's own template shows it the tools. Without that, a system message does, and the
    markers are those of Hermes and Qwen: ``<tool_call>{"name": …, "arguments": {…}}</tool_call>``.
    """

    start: str = "<tool_call>"
    end: str = "</tool_call>"
    native: bool = False
    parse: Parse | None = None

    @classmethod
    def of(cls, tokenizer: Any) -> ToolDialect:
        """What mlx-lm knows of the model's template, if the template takes tools at all."""
        template = getattr(tokenizer, "chat_template", None)
        shows_tools = not isinstance(template, str) or "tools" in template
        if not getattr(tokenizer, "has_tool_calling", False) or not shows_tools:
            return cls()
        return cls(
            start=str(tokenizer.tool_call_start),
            end=str(tokenizer.tool_call_end or ""),
            native=True,
            parse=tokenizer.tool_parser,
        )

    def read(self, body: str, tools: Sequence[Tool]) -> tuple[ToolCall, ...]:
        """The calls in the text between the markers: JSON, which grammars force on every model, or the model's own way.

        Raises:
            Unfinished: it ends within a string.
            ValueError: it is no call, or one of a function that is not there.
        """
        try:
            return _calls(json.loads(body), tools)
        except json.JSONDecodeError as error:
            if error.msg.startswith("Unterminated string"):
                raise Unfinished(str(error)) from None
        except (ValueError, RecursionError):
            pass  # JSON of another form, or deeper than Python reads: the model's own way may tell
        if self.parse is None:
            raise ValueError("it is no call of a function")
        try:
            return _calls(self.parse(body, as_template_sees(tools)), tools)
        except Exception as error:  # mlx-lm's parsers raise whatever their regular expressions and indices lead to
            raise ValueError(f"no tool call was found: {type(error).__name__}") from error


def as_template_sees(tools: Sequence[Tool]) -> list[dict[str, Any]]:
    """Tools as OpenAI and Hugging Face's chat templates write them."""
    return [
        {
            "type": "function",
            "function": {
                "name": tool.name,
                **({} if tool.description is None else {"description": tool.description}),
                "parameters": json.loads(tool.parameters or "{}"),
            },
        }
        for tool in tools
    ]


def _calls(found: object, tools: Sequence[Tool]) -> tuple[ToolCall, ...]:
    names = {tool.name for tool in tools}
    return tuple(_call(call, names) for call in (found if isinstance(found, list) else [found]))


def _call(call: object, names: set[str]) -> ToolCall:
    if not isinstance(call, Mapping) or call.get("name") not in names:
        raise ValueError("it calls no function that is there")
    arguments = call.get("arguments", call.get("parameters", {}))
    if isinstance(arguments, str):
        text = arguments
    elif isinstance(arguments, Mapping):
        text = json.dumps(arguments, ensure_ascii=False)
    else:
        raise ValueError("the arguments are no JSON object")  # noqa: TRY004 (a value that the model wrote)
    own_id = call.get("id")
    return ToolCall(
        id=whole_characters(own_id) if isinstance(own_id, str) else "",
        name=str(call["name"]),
        arguments=whole_characters(text),
    )
