"""What one model's answers are read and ruled by: its marks of reasoning and of tool calls, and compiled grammars."""

from __future__ import annotations

from collections.abc import Collection
from concurrent.futures import Future, wait
from dataclasses import replace
from typing import Any

from manent.adapters.inference.batch_entry import BatchEntry
from manent.adapters.inference.grammars import Grammars
from manent.adapters.inference.guide import Thinking
from manent.adapters.inference.output_reader import OutputReader
from manent.adapters.inference.protocol import Generate

_OPENING_TOKENS = 32
"""How far from a prompt's end an opened reasoning is looked for, where it is not known what the messages are."""


class OutputRules:
    """Belongs to the thread that evaluates; ``grammars`` is shared with the one that renders."""

    def __init__(self, tokenizer: Any, *, vocabulary_size: int, eos_token_ids: Collection[int]) -> None:
        self.grammars = Grammars(tokenizer, vocabulary_size=vocabulary_size, eos_token_ids=eos_token_ids)
        self._compiling: dict[int, Future[Any]] = {}
        self._marks: tuple[str, str] | None = None
        self._thinking: Thinking | None = None
        if getattr(tokenizer, "has_thinking", False):
            self._marks = tokenizer.think_start, tokenizer.think_end
            self._thinking = Thinking(start=tokenizer.think_start_tokens, end=tokenizer.think_end_tokens)

    def thinking(self, request: Generate) -> Thinking | None:
        """The marks of reasoning, and whether this prompt opened it; None for a model without it."""
        if self._thinking is None or request.raw:
            return None
        asks = list(request.token_ids[request.history_tokens or -_OPENING_TOKENS :])
        opened = _last(asks, self._thinking.start) > _last(asks, self._thinking.end)
        return replace(self._thinking, opened=opened)

    def new_reader(self, request: Generate, thinking: Thinking | None) -> OutputReader | None:
        """What takes an answer apart; None where all of it is text."""
        shape = request.parameters.shape
        tools = () if shape is None else shape.callable_tools
        if request.raw or (not tools and self._marks is None):
            return None
        return OutputReader(
            thinking=self._marks,
            reasons=thinking is not None and thinking.opened,
            dialect=self.grammars.dialect,
            tools=tools,
            one_call=shape is not None and not shape.parallel,
        )

    def must_compile(self, entry: BatchEntry) -> bool:
        """Have a request follow its grammar; True if that is still compiled, and the request shows in ``arrived``.

        Raises:
            GrammarRefused: it cannot be enforced.
        """
        request = entry.request
        if request.parameters.shape is None:
            return False
        grammar = self._compiling.pop(request.id, None) or self.grammars.of(request.parameters.shape)
        if not grammar.done():
            self._compiling[request.id] = grammar
            return True
        if (matcher := grammar.result()) is not None:
            entry.ruled_by(matcher)
        return False

    def arrived(self, *, wait_s: float) -> list[int]:
        """The requests whose grammar is compiled, well or not; waits for one for at most ``wait_s``."""
        if not self._compiling:
            return []
        wait(self._compiling.values(), timeout=wait_s, return_when="FIRST_COMPLETED")
        return [request_id for request_id, grammar in self._compiling.items() if grammar.done()]

    def forget(self, request_id: int) -> None:
        """A request ended, whatever the reason."""
        self._compiling.pop(request_id, None)


def _last(tokens: list[int], wanted: tuple[int, ...]) -> int:
    """Where ``wanted`` stands last; -1 where it does not."""
    for place in range(len(tokens) - len(wanted), -1, -1):
        if tuple(tokens[place : place + len(wanted)]) == wanted:
            return place
    return -1
