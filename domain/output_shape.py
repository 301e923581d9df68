"""The form that an answer must have: a format that its text keeps to, and the tools that it may or must call."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum


class FormatKind(StrEnum):
    """What describes the format."""

    JSON_OBJECT = "json_object"
    JSON_SCHEMA = "json_schema"
    REGEX = "regex"
    CHOICE = "choice"
    GRAMMAR = "grammar"


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputFormat:
    """What the text keeps to, token by token.

    ``definition`` is the JSON text of a schema, a regular expression, a JSON array of texts to choose from, or a
    grammar in llguidance's Lark dialect; empty for ``json_object``, and where content is not recorded.
    """

    kind: FormatKind
    definition: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A function that the model may ask to be called.

    ``parameters`` is the JSON text of a schema of its arguments. ``strict`` arguments keep to it whatever the model
    would rather say. A ``custom`` tool takes text, which is the one argument ``input``.
    """

    name: str
    description: str | None = None
    parameters: str = '{"type":"object","properties":{}}'
    strict: bool = False
    custom: bool = False


class ToolChoice(StrEnum):
    """Whether tools are called: never, as the model likes, at least one, or the one that is named."""

    NONE = "none"
    AUTO = "auto"
    REQUIRED = "required"
    NAMED = "named"


class ReasoningEffort(StrEnum):
    """How much the model is to think, in OpenAI's words."""

    NONE = "none"
    MINIMAL = "minimal"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    XHIGH = "xhigh"
    MAX = "max"


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputShape:
    """What a request says about the form of its answer.

    ``tool_name`` is the one that ``NAMED`` means; without ``parallel`` there is one call at most. ``reasoning_effort``
    is told to the model's template, which may know it or not.
    """

    format: OutputFormat | None = None
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice = ToolChoice.AUTO
    tool_name: str | None = None
    parallel: bool = True
    reasoning_effort: ReasoningEffort | None = None

    @property
    def callable_tools(self) -> tuple[Tool, ...]:
        """The tools that may be called; what may not be called is not shown to the model either."""
        return () if self.tool_choice is ToolChoice.NONE else self.tools

    @property
    def forced_tools(self) -> tuple[Tool, ...]:
        """The tools of which one must be called; empty where none must."""
        if self.tool_choice is ToolChoice.NAMED:
            return tuple(tool for tool in self.tools if tool.name == self.tool_name)
        return self.tools if self.tool_choice is ToolChoice.REQUIRED else ()

    def without_content(self) -> OutputShape:
        """What is recorded where content is not: kinds and names, no descriptions and no schemas."""
        return replace(
            self,
            format=None if self.format is None else replace(self.format, definition=""),
            tools=tuple(replace(tool, description=None, parameters="") for tool in self.tools),
        )
