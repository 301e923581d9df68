"""What clients send about the form of an answer: tools, which of them are called, formats."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from manent.adapters.http.wire import Wire

TOOLS_MAX = 128
TOOL_CALLS_MAX = 128
ARGUMENTS_CHARS_MAX = 256 * 1024
CHOICES_MAX = 1000

Name = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
CallId = Annotated[str, Field(min_length=1, max_length=256)]


class CalledFunction(Wire):
    """The function of a call; ``arguments`` is JSON text, as the model wrote it."""

    name: Annotated[str, Field(min_length=1, max_length=256)]
    arguments: Annotated[str, Field(max_length=ARGUMENTS_CHARS_MAX)]
    parsed_arguments: Any = Field(default=None, description="What a client's parse() made of them; without effect.")


class FunctionCall(Wire):
    """A call that the assistant asked for. ``index`` is what streams have in it."""

    id: CallId
    type: Literal["function"] = "function"
    function: CalledFunction
    index: Annotated[int, Field(ge=0)] | None = None


class FunctionSpec(Wire):
    """A function that may be called; ``parameters`` is a JSON schema of its arguments."""

    name: Name
    description: Annotated[str, Field(max_length=16 * 1024)] | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = Field(default=None, description="Have the arguments enforced, whatever tool_choice is.")


class FunctionTool(Wire):
    """A tool."""

    type: Literal["function"]
    function: FunctionSpec


class NamedFunction(Wire):
    """The name of a function."""

    name: Name


class NamedToolChoice(Wire):
    """The function that must be called."""

    type: Literal["function"]
    function: NamedFunction


class JsonSchemaFormat(Wire):
    """A JSON schema that the answer keeps to."""

    name: Name
    description: Annotated[str, Field(max_length=16 * 1024)] | None = None
    schema_: dict[str, Any] = Field(alias="schema")
    strict: bool | None = Field(default=None, description="The schema is enforced in any case.")


class ResponseFormat(Wire):
    """The format of the answer's text."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaFormat | None = None


class StructuredOutputs(Wire):
    """Manent's, after vLLM: what else the answer's text can keep to. One of the three."""

    regex: Annotated[str, Field(min_length=1)] | None = None
    choice: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1, max_length=CHOICES_MAX)] | None = (
        None
    )
    grammar: Annotated[str, Field(min_length=1, description="In llguidance's Lark dialect.")] | None = None


def _choice_kind(value: Any) -> str | None:
    if value is None:
        return "<null>"
    if isinstance(value, str):
        return "<mode>"
    return "<function>" if isinstance(value, dict) else None


ToolChoiceParameter = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("<mode>")]
    | Annotated[NamedToolChoice, Tag("<function>")]
    | Annotated[None, Tag("<null>")],
    Discriminator(_choice_kind),
]
