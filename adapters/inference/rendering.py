"""From messages to tokens: the model's chat template and tokenizer."""

from __future__ import annotations

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
    Tokenize,
)
from manent.adapters.inference.tool_dialect import ToolDialect, as_template_sees
from manent.adapters.inference.tool_prompt import without_template
from manent.domain.messages import Message, Role, ToolCall
from manent.domain.output_shape import OutputShape, ReasoningEffort, Tool

_ENVELOPE_TOKENS = 8
"""What a template puts around a message, where it cannot be measured; role and markers take four to seven."""

_EFFORTS = {
    ReasoningEffort.NONE: ReasoningEffort.LOW,
    ReasoningEffort.MINIMAL: ReasoningEffort.LOW,
    ReasoningEffort.XHIGH: ReasoningEffort.HIGH,
    ReasoningEffort.MAX: ReasoningEffort.HIGH,
}
"""The efforts that no template knows, and the nearest that some do."""

_PROBE = {"role": "user", "content": "."}


TextFrame = Render | Explain | Tokenize | CountTokens
"""What a renderer answers."""


class TemplateRefusal(Exception):
    """The model's chat template raised on these messages; the message is what it said."""


class PromptRenderer:
    """Renders and counts for one model. Used by one thread."""

    def __init__(self, tokenizer: Any, grammars: Grammars | None = None) -> None:
        self._tokenizer = tokenizer
        self._grammars = grammars
        self._dialect = ToolDialect.of(tokenizer)

    def answer(self, frame: TextFrame) -> RunnerFrame:
        """The answer to a request."""
        try:
            return self._answer(frame)
        except TemplateRefusal as refusal:
            return Failed(id=frame.id, code="invalid_value", message=str(refusal))
        except GrammarRefused as refusal:
            return Failed(id=frame.id, code="invalid_value", message=str(refusal), param=refusal.param)
        except Exception as error:  # noqa: BLE001 (a tokenizer that fails on a text fails this request alone)
            message = f"the prompt could not be tokenized: {type(error).__name__}"
            return Failed(id=frame.id, code="generation_failed", message=message)

    def _answer(self, frame: TextFrame) -> RunnerFrame:
        match frame:
            case Render():
                return self._rendered(frame)
            case Explain():
                text = self.text(frame.messages, frame.shape)
                return Explained(id=frame.id, text=text, token_ids=self.token_ids(text, frame.messages))
            case Tokenize():
                return self._tokenized(frame)
            case CountTokens():
                return Counted(id=frame.id, token_counts=self.count_tokens(frame.messages))

    def _rendered(self, frame: Render) -> Rendered:
        if frame.shape is not None and self._grammars is not None:
            self._grammars.check(frame.shape)
        token_ids = self.render(frame.messages, frame.shape)
        history_tokens = self.history_tokens(frame.messages, token_ids, frame.shape)
        return Rendered(id=frame.id, token_ids=token_ids, history_tokens=history_tokens)

    def _tokenized(self, frame: Tokenize) -> Explained:
        """A prompt as it stands, with the marks that the tokenizer puts around a text of its own accord."""
        if frame.token_ids is not None:
            return Explained(id=frame.id, text=self._tokenizer.decode(list(frame.token_ids)), token_ids=frame.token_ids)
        token_ids = tuple(self._tokenizer.encode(frame.text or ""))
        if not token_ids:
            begin = self._tokenizer.bos_token_id
            token_ids = (self._tokenizer.eos_token_id if begin is None else begin,)
        return Explained(id=frame.id, text=frame.text or "", token_ids=token_ids)

    def render(self, messages: Sequence[Message], shape: OutputShape | None = None) -> tuple[int, ...]:
        """The tokens of a prompt that asks for the assistant's next message.

        Raises:
            TemplateRefusal: the template does not accept these messages.
        """
        return self.token_ids(self.text(messages, shape), messages)

    def token_ids(self, text: str, _messages: Sequence[Message]) -> tuple[int, ...]:
        """The tokens of the text of a prompt."""
        return tuple(self._encode(text))

    def text(self, messages: Sequence[Message], shape: OutputShape | None = None) -> str:
        """What ``render`` tokenizes; raises as it does."""
        return self._apply([self.turn(message) for message in messages], prompt=True, shape=shape)

    def turn(self, message: Message) -> dict[str, Any]:
        """A message as the template is given it."""
        return _as_template_sees(message)

    def history_tokens(
        self, messages: Sequence[Message], token_ids: Sequence[int], shape: OutputShape | None = None
    ) -> int:
        """How many tokens of a rendered prompt are the messages alone; 0 where template or tokenizer do not tell.

        What is behind them, and asks for an answer, is tokenized on its own and must be the prompt's end.
        """
        turns = [self.turn(message) for message in messages]
        try:
            history = self._apply(turns, prompt=False, shape=shape)
            whole = self._apply(turns, prompt=True, shape=shape)
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

    def _apply(self, turns: list[dict[str, Any]], *, prompt: bool, shape: OutputShape | None = None) -> str:
        tools = tools_of(shape)
        more = _thinking_words(shape)
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


def _thinking_words(shape: OutputShape | None) -> dict[str, Any]:
    """What templates call the wish for more or less thinking; one that does not know a word takes no notice of it.

    Qwen's, GLM's and others' can be told not to think; gpt-oss's knows three efforts.
    """
    if shape is None or shape.reasoning_effort is None:
        return {}
    effort = shape.reasoning_effort
    return {
        "enable_thinking": effort not in {ReasoningEffort.NONE, ReasoningEffort.MINIMAL},
        "reasoning_effort": _EFFORTS.get(effort, effort).value,
    }


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
    arguments = call.read_arguments()
    if not isinstance(arguments, dict):
        arguments = call.arguments
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}
