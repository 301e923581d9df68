"""From messages to tokens: the model's chat template and tokenizer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from manent.adapters.inference.grammars import GrammarRefused, Grammars
from manent.adapters.inference.protocol import (
    Counted,
    CountTokens,
    Explain,
    Explained,
    Failed,
    Render,
    Rendered,
    RunnerFrame,
)
from manent.adapters.inference.tool_dialect import ToolDialect, as_template_sees
from manent.adapters.inference.tool_prompt import without_template
from manent.domain.messages import Message, Role, ToolCall
from manent.domain.output_shape import OutputShape, Tool

_ENVELOPE_TOKENS = 8
"""What a template puts around a message, where it cannot be measured; role and markers take four to seven."""

_PROBE = {"role": "user", "content": "."}


class TemplateRefusal(Exception):
    """The model's chat template raised on these messages; the message is what it said."""


class PromptRenderer:
    """Renders and counts for one model. Used by one thread."""

    def __init__(self, tokenizer: Any, grammars: Grammars | None = None) -> None:
        self._tokenizer = tokenizer
        self._grammars = grammars
        self._dialect = ToolDialect.of(tokenizer)

    def answer(self, frame: Render | Explain | CountTokens) -> RunnerFrame:
        """The answer to a request."""
        try:
            if isinstance(frame, Render):
                return self._rendered(frame)
            if isinstance(frame, Explain):
                text = self.text(frame.messages, tools_of(frame.shape))
                return Explained(id=frame.id, text=text, token_ids=self.token_ids(text, frame.messages))
            return Counted(id=frame.id, token_counts=self.count_tokens(frame.messages))
        except TemplateRefusal as refusal:
            return Failed(id=frame.id, code="invalid_value", message=str(refusal))
        except GrammarRefused as refusal:
            return Failed(id=frame.id, code="invalid_value", message=str(refusal), param=refusal.param)
        except Exception as error:  # noqa: BLE001 (a tokenizer that fails on a text fails this request alone)
            message = f"the messages could not be tokenized: {type(error).__name__}"
            return Failed(id=frame.id, code="generation_failed", message=message)

    def _rendered(self, frame: Render) -> Rendered:
        tools = tools_of(frame.shape)
        if frame.shape is not None and self._grammars is not None:
            self._grammars.check(frame.shape)
        token_ids = self.render(frame.messages, tools)
        history_tokens = self.history_tokens(frame.messages, token_ids, tools)
        return Rendered(id=frame.id, token_ids=token_ids, history_tokens=history_tokens)

    def render(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> tuple[int, ...]:
        """The tokens of a prompt that asks for the assistant's next message.

        Raises:
            TemplateRefusal: the template does not accept these messages.
        """
        return self.token_ids(self.text(messages, tools), messages)

    def token_ids(self, text: str, _messages: Sequence[Message]) -> tuple[int, ...]:
        """The tokens of the text of a prompt."""
        return tuple(self._encode(text))

    def text(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> str:
        """What ``render`` tokenizes; raises as it does."""
        return self._apply([self.turn(message) for message in messages], prompt=True, tools=tools)

    def turn(self, message: Message) -> dict[str, Any]:
        """A message as the template is given it."""
        return _as_template_sees(message)

    def history_tokens(self, messages: Sequence[Message], token_ids: Sequence[int], tools: Sequence[Tool] = ()) -> int:
        """How many tokens of a rendered prompt are the messages alone; 0 where template or tokenizer do not tell.

        What is behind them, and asks for an answer, is tokenized on its own and must be the prompt's end.
        """
        turns = [self.turn(message) for message in messages]
        try:
            history = self._apply(turns, prompt=False, tools=tools)
            whole = self._apply(turns, prompt=True, tools=tools)
        except TemplateRefusal:
            return 0
        asks = self._encode(whole[len(history) :]) if whole.startswith(history) else []
        length = len(token_ids) - len(asks)
        return length if asks and list(token_ids[length:]) == asks else 0

    def count_tokens(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """What each message adds, measured behind the message before it.

        Linear in the conversation, and exact unless a template looks further back than one message. A template that
        does not accept such an excerpt is asked again with a user's message in front, and estimated after that.
        """
        turns = [self.turn(message) for message in messages]
        return tuple(
            self._count_after(turns[index - 1] if index else None, turn, messages[index])
            + self.tokens_beside_text(messages[index])
            for index, turn in enumerate(turns)
        )

    def tokens_beside_text(self, _message: Message) -> int:
        """What a message adds that its text does not show."""
        return 0

    def _count_after(self, before: dict[str, Any] | None, turn: dict[str, Any], message: Message) -> int:
        contexts = [[], [_PROBE]] if before is None else [[before], [_PROBE, before]]
        for context in contexts:
            try:
                whole = self._apply([*context, turn], prompt=False)
                already = self._apply(context, prompt=False) if context else ""
            except TemplateRefusal:
                continue
            return len(self._encode(whole)) - (len(self._encode(already)) if already else 0)
        calls = "".join(call.name + call.arguments for call in message.tool_calls)
        return len(self._encode(message.text + calls)) + _ENVELOPE_TOKENS

    def _apply(self, turns: list[dict[str, Any]], *, prompt: bool, tools: Sequence[Tool] = ()) -> str:
        more: dict[str, Any] = {}
        if not self._dialect.native:
            turns = without_template(turns, tools, self._dialect)
        elif tools:
            more["tools"] = as_template_sees(tools)
        try:
            return str(self._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=prompt, **more))
        except Exception as error:  # a template is a program of the model's author and may raise anything
            said = f"{error}"[:300] or type(error).__name__
            raise TemplateRefusal(f"the model's chat template refuses these messages: {said}") from error

    def _encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False))


def tools_of(shape: OutputShape | None) -> Sequence[Tool]:
    """Those that a prompt tells the model of."""
    return () if shape is None else shape.callable_tools


def _as_template_sees(message: Message) -> dict[str, Any]:
    """The dictionary that Hugging Face's chat templates expect."""
    turn: dict[str, Any] = {"role": message.role.value, "content": message.text}
    if message.name is not None:
        turn["name"] = message.name
    if message.role is Role.TOOL and message.tool_call_id is not None:
        turn["tool_call_id"] = message.tool_call_id
    if message.reasoning is not None:
        turn["reasoning_content"] = message.reasoning
    if message.tool_calls:
        turn["tool_calls"] = [_call_as_template_sees(call) for call in message.tool_calls]
    return turn


def _call_as_template_sees(call: ToolCall) -> dict[str, Any]:
    """Templates iterate over arguments, so JSON text is parsed; what is no JSON object stays text."""
    try:
        arguments = json.loads(call.arguments)
    except (ValueError, RecursionError):
        arguments = call.arguments
    if not isinstance(arguments, dict):
        arguments = call.arguments
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}
