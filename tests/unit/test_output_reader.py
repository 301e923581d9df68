"""An answer's parts: reasoning, text and tool calls come out the same however the text was cut into pieces."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlx_lm.tool_parsers import mistral, pythonic, qwen3_coder

from manent.adapters.inference.output_reader import OutputReader, Parts
from manent.adapters.inference.tool_dialect import ToolDialect
from manent.domain.output_shape import Tool

THINK = ("<think>", "</think>")
HERMES = ToolDialect()
MISTRAL = ToolDialect(start="[TOOL_CALLS]", end="", native=True, parse=mistral.parse_tool_call)
CODER = ToolDialect(native=True, parse=qwen3_coder.parse_tool_call)
LFM = ToolDialect(start="<|tool_call_start|>", end="<|tool_call_end|>", native=True, parse=pythonic.parse_tool_call)
TOOLS = (Tool(name="f"), Tool(name="g", parameters='{"type":"object","properties":{"n":{"type":"integer"}}}'))
CALL = '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'
TRICKY = '<tool_call>{"name": "f", "arguments": {"a": "</tool_call>"}}</tool_call>'

Read = tuple[str, str, list[tuple[str, str]]]


def read(pieces: list[str], *, dialect: ToolDialect | None = HERMES, opened: bool = False, one: bool = False) -> Read:
    """Text, reasoning and calls of an answer that comes in pieces."""
    reader = OutputReader(thinking=THINK, reasons=opened, dialect=dialect, tools=TOOLS, one_call=one)
    parts: list[Parts] = [*map(reader.push, pieces), reader.finish()]
    calls = [(call.name, call.arguments) for part in parts for call in part.tool_calls]
    return "".join(part.text for part in parts), "".join(part.reasoning for part in parts), calls


F = ("f", '{"a": 1}')
ANSWERS: list[tuple[str, Read]] = [
    ("", ("", "", [])),
    ("plain text \n", ("plain text \n", "", [])),
    ("\n plain", ("\n plain", "", [])),
    ("a < b, <tool and <think", ("a < b, <tool and <think", "", [])),
    ("<think>\nwhy\n</think>\n\nso", ("so", "why", [])),
    ("<think>never ends", ("", "never ends", [])),
    ("<think></think>so", ("so", "", [])),
    (CALL, ("", "", [F])),
    (f"I look.\n{CALL}\n{CALL}\n", ("I look.", "", [F, F])),
    (f"<think>plan</think>\n{CALL}", ("", "plan", [F])),
    (f"{CALL} done", (" done".strip(), "", [F])),
    (TRICKY, ("", "", [("f", '{"a": "</tool_call>"}')])),
    (
        '<tool_call>{"name": "f", "arguments": {"a": "x\\ud83dy\\ud83d\\ude00\\ude00"}}</tool_call>',
        ("", "", [("f", '{"a": "x\ufffdy\N{GRINNING FACE}\ufffd"}')]),
    ),
    ('<tool_call>{"name": "f", "argu', ('<tool_call>{"name": "f", "argu', "", [])),
    (f'{CALL}\n<tool_call>{{"name": "f", "argu', ("", "", [F])),
    (f'I look.\n{CALL}\n<tool_call>{{"name": "f", "argu', ("I look.", "", [F])),
    ("<tool_call>no json</tool_call> on", ("<tool_call>no json</tool_call> on", "", [])),
    ('<tool_call>{"name": "h", "arguments": {}}</tool_call>',) * 1
    + (("<tool_call>" + '{"name": "h", "arguments": {}}' + "</tool_call>", "", []),),
    ("<tool_call>" + "[" * 5000 + "</tool_call>", ("<tool_call>" + "[" * 5000 + "</tool_call>", "", [])),
]


@pytest.mark.parametrize(("text", "expected"), ANSWERS, ids=range(len(ANSWERS)))
def test_an_answer_is_taken_apart(text: str, expected: Read) -> None:
    """Whole, and one character at a time; what is no call stays text, so that nothing is lost."""
    assert read([text]) == expected
    assert read(list(text)) == expected


@given(
    st.lists(st.sampled_from(["<think>", "</think>", "<tool_call>", "</tool_call>", CALL, "<", "a", " ", "\n", '"'])),
    st.data(),
)
def test_pieces_do_not_matter(parts: list[str], data: st.DataObject) -> None:
    """Streams see what the whole text says, wherever it is cut."""
    text = "".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert read(pieces) == read([text])


def test_the_prompt_may_have_opened_the_reasoning() -> None:
    """Templates that end in a start mark leave the model only the end mark to say."""
    assert read(["why", "</thi", "nk>so"], opened=True) == ("so", "why", [])


def test_without_parallel_calls_the_answer_ends_with_the_first() -> None:
    """What follows it is not wanted, and not shown."""
    assert read([f"{CALL}\n{CALL} more"], one=True) == ("", "", [F])


@pytest.mark.parametrize(
    ("dialect", "text"),
    [
        (MISTRAL, '[TOOL_CALLS]g[ARGS]{"n": 3}'),
        (MISTRAL, '[TOOL_CALLS][{"name": "g", "arguments": {"n": 3}}]'),
        (CODER, "<tool_call>\n<function=g>\n<parameter=n>\n3\n</parameter>\n</function>\n</tool_call>"),
        (LFM, "<|tool_call_start|>[g(n=3)]<|tool_call_end|>"),
        (LFM, '<|tool_call_start|>\n{"name": "g", "arguments": {"n": 3}}\n<|tool_call_end|>'),
        (HERMES, '<tool_call>{"name": "g", "parameters": {"n": 3}}</tool_call>'),
        (replace(HERMES, end="</x>"), '<tool_call>{"name": "g", "arguments": "{\\"n\\": 3}"}</x>'),
    ],
)
def test_calls_are_read_as_the_model_writes_them(dialect: ToolDialect, text: str) -> None:
    """mlx-lm's parsers by template, and the JSON that grammars force on every model."""
    assert read([text], dialect=dialect) == ("", "", [("g", '{"n": 3}')])
    assert read(list(text), dialect=dialect) == read([text], dialect=dialect)
