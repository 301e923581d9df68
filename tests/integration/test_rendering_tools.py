"""Prompts with tools: by the model's own template, or in words that every template knows."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlx_lm.tokenizer_utils import load as load_tokenizer

from manent.adapters.inference.rendering import PromptRenderer
from manent.domain.messages import Message, Role, TextPart, ToolCall
from manent.domain.output_shape import OutputShape, ReasoningEffort, Tool
from tests.support.talking_model import make_talking_model

F = Tool(name="f", description="does f", parameters='{"type": "object", "properties": {"a": {"type": "integer"}}}')
SHAPE = OutputShape(tools=(F,))


def message(role: Role, text: str = "", *, reasoning: str | None = None, calls: bool = False) -> Message:
    """A message; the assistant's may call."""
    call = ToolCall(id="c", name="f", arguments='{"a": 1}')
    return Message(
        message_id="m",
        role=role,
        content=(TextPart(text=text),) if text else (),
        tool_calls=(call,) if calls else (),
        tool_call_id="c" if role is Role.TOOL else None,
        reasoning=reasoning,
    )


ASKED = [message(Role.SYSTEM, "be kind"), message(Role.USER, "hi")]
CALLED = [*ASKED, message(Role.ASSISTANT, reasoning="why", calls=True), message(Role.TOOL, "21")]


@pytest.fixture(scope="module")
def own_template(starter_model: Path, tmp_path_factory: pytest.TempPathFactory) -> PromptRenderer:
    """A model whose template knows tools and reasoning."""
    folder = make_talking_model(tmp_path_factory.mktemp("talker") / "model", starter=starter_model)
    return PromptRenderer(load_tokenizer(folder))


@pytest.fixture(scope="module")
def starter(starter_model: Path) -> PromptRenderer:
    """The starter model, whose template knows neither."""
    return PromptRenderer(load_tokenizer(starter_model))


def test_a_template_that_takes_tools_gets_them(own_template: PromptRenderer) -> None:
    """As the dictionaries that Hugging Face's templates are written for; without tools they are not there."""
    assert '"name": "f"' in own_template.text(ASKED, SHAPE)
    assert "be kind" in own_template.text(ASKED, SHAPE)
    assert '"name": "f"' not in own_template.text(ASKED)
    assert '<tool_call>\n{"name": "f"}\n</tool_call>' in own_template.text(CALLED, SHAPE)


def test_the_template_decides_about_reasoning(own_template: PromptRenderer, starter: PromptRenderer) -> None:
    """This one shows the last message's; the starter's shows none."""
    thought = [*ASKED, message(Role.ASSISTANT, "so", reasoning="because")]
    assert "<think>because</think>so" in own_template.text(thought)
    assert "because" not in own_template.text([*thought, message(Role.USER, "and?")])
    assert "because" not in starter.text(thought)


def test_a_template_without_tools_gets_a_system_message(starter: PromptRenderer) -> None:
    """Behind the client's own, if there is one; calls and results are text of roles that it knows."""
    text = starter.text(CALLED, SHAPE)
    assert text.startswith("<|im_start|>system\nbe kind\n\nYou can call functions.")
    assert '"description": "does f"' in text
    assert '<|im_start|>assistant\n<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call><|im_end|>' in text
    assert "<|im_start|>user\n<tool_response>\n21\n</tool_response><|im_end|>" in text
    assert starter.text(ASKED[1:], SHAPE).startswith("<|im_start|>system\nYou can call functions.")
    assert "functions" not in starter.text(CALLED)


def test_the_messages_part_of_a_prompt_is_known_with_tools_too(starter: PromptRenderer) -> None:
    """What later prompts of the conversation begin with is cached."""
    prompt = starter.render(ASKED, SHAPE)
    length = starter.history_tokens(ASKED, prompt, SHAPE)
    assert 0 < length < len(prompt)
    later = starter.render(CALLED, SHAPE)
    assert later[:length] == prompt[:length]


def test_arguments_that_are_too_deep_for_python_stay_text(starter: PromptRenderer) -> None:
    """They are rendered as they came."""
    deep = ToolCall(id="c", name="f", arguments="[" * 100_000)
    text = starter.text([*ASKED, Message(message_id="m", role=Role.ASSISTANT, content=(), tool_calls=(deep,))])
    assert "[[[[" in text


def test_an_effort_is_told_to_templates_that_know_it(own_template: PromptRenderer, starter: PromptRenderer) -> None:
    """``none`` has a template that can close the reasoning close it; one that knows no such word renders as ever."""
    plain = own_template.text(ASKED)
    told = {effort.value: own_template.text(ASKED, OutputShape(reasoning_effort=effort)) for effort in ReasoningEffort}
    assert told["none"] == told["minimal"] == f"{plain}<think>\n\n</think>\n\n"
    assert {told[effort] for effort in ("low", "medium", "high", "xhigh", "max")} == {plain}
    assert {starter.text(ASKED, OutputShape(reasoning_effort=effort)) for effort in ReasoningEffort} == {
        starter.text(ASKED)
    }
