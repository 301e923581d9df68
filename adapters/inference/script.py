"""What a scripted generation says, and how it comes to its end: its pieces, within what was asked for."""

from __future__ import annotations

import zlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from manent.adapters.inference.stop_text import StopMatcher
from manent.domain.errors import DomainError
from manent.domain.generation import (
    FinishReason,
    GeneratedChoice,
    SamplingParameters,
    TextDelta,
    TokenCandidate,
    TokenLogprobs,
)
from manent.domain.messages import ToolCall
from manent.domain.output import PartialChoice

WORDS_REMEMBERED_MAX = 1000

Hook = Callable[[int], Awaitable[None]]


async def at_once(_delta: int) -> None:
    """The hook that waits for nothing."""


class Thought(str):
    """A piece of reasoning."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class _Reply:
    """One choice as it was written; ``is_whole`` unless max_tokens cut it off."""

    deltas: Sequence[TextDelta]
    choice: GeneratedChoice
    is_whole: bool

    @classmethod
    def of(cls, deltas: Sequence[TextDelta], *, is_whole: bool) -> _Reply:
        """The reply of ``deltas``."""
        said = PartialChoice()
        for delta in deltas:
            said.add(delta)
        return cls(deltas, said.finished(_why(said, ends=is_whole or not deltas), None), is_whole)


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """What one generation does.

    Attributes:
        pieces: the reply; each piece is a token and a delta. Choice number n begins with piece n. A ``Thought`` is
            reasoning, and a ToolCall a call; what is behind a call is said as well.
        before_delta: awaited with a piece's number, from 0, before it is yielded; wait here to hold a stream.
        failure: raised instead of delta number ``fails_at`` (or of the result, where there are fewer).
        fails_at: see ``failure``.
    """

    pieces: tuple[str | ToolCall, ...] = ("Hello", ",", " this", " is", " scripted", ".")
    before_delta: Hook = at_once
    failure: DomainError | None = None
    fails_at: int = 0
    _replies: dict[tuple[int, int], _Reply] = field(default_factory=dict, init=False, compare=False, repr=False)

    def reply(self, index: int, max_tokens: int) -> _Reply:
        """What choice ``index`` says, where nobody wants an end or log probabilities; made once."""
        whole = self.pieces[index:] or self.pieces[-1:]
        length = min(len(whole), max_tokens)
        reply = self._replies.get((index, length))
        if reply is None:
            reply = _Reply.of([_delta_of(piece, index) for piece in whole[:length]], is_whole=length == len(whole))
            self._replies[index, length] = reply
        return reply


class Playing:
    """One choice of a reply. The log probability of each token is -0.5, and one less for each alternative."""

    def __init__(self, script: Script, parameters: SamplingParameters, index: int) -> None:
        self._parameters = parameters
        self._reply = reply = script.reply(index, parameters.max_tokens)
        self._as_written = not (parameters.stop or parameters.logprobs or parameters.stop_token_ids)
        self._stops = StopMatcher(parameters.stop) if parameters.stop else None
        self._said = PartialChoice()
        self.tokens = 0
        self.finish_reason: FinishReason | None = None if reply.deltas else FinishReason.STOP

    def next(self) -> TextDelta:
        """Say the next piece."""
        delta = piece = self._reply.deltas[self.tokens]
        self.tokens += 1
        last = self.tokens == len(self._reply.deltas)
        if self._as_written:
            if last:
                self.finish_reason = self._reply.choice.finish_reason
            return delta
        stops = last and self._reply.is_whole
        if self._stops is not None:
            delta = replace(delta, text=self._stops.push(delta.text) + (self._stops.finish() if last else ""))
            stops = stops or self._stops.stopped
        if self._parameters.logprobs and delta.text:
            word = next((call.name for call in piece.tool_calls), piece.text or piece.reasoning)
            delta = replace(delta, logprobs=(self._candidates(word),))
        stops = stops or delta.token_ids[0] in self._parameters.stop_token_ids
        self._said.add(delta)
        if stops or last:
            self.finish_reason = _why(self._said, ends=stops)
        return delta

    @property
    def reasoning_tokens(self) -> int:
        """How many pieces were thoughts."""
        return len([delta for delta in self._reply.deltas[: self.tokens] if delta.reasoning])

    def result(self) -> GeneratedChoice:
        """What was said."""
        if self._as_written:
            return self._reply.choice
        stop_sequence = None if self._stops is None else self._stops.stopped_by
        return self._said.finished(self.finish_reason or FinishReason.STOP, stop_sequence)

    def _candidates(self, piece: str) -> TokenLogprobs:
        names = [piece, *(f"{piece}{number}" for number in range(1, self._parameters.top_logprobs))]
        found = [
            TokenCandidate(token_id=token_of(name), token_bytes=name.encode(), logprob=-0.5 - number)
            for number, name in enumerate(names)
        ]
        return TokenLogprobs(chosen=found[0], top=tuple(found[: self._parameters.top_logprobs]))


def _why(said: PartialChoice, *, ends: bool) -> FinishReason:
    """Why a choice says no more: it ``ends``, or is cut off."""
    if not ends:
        return FinishReason.LENGTH
    return FinishReason.TOOL_CALLS if said.tool_calls else FinishReason.STOP


def _delta_of(piece: str | ToolCall, index: int) -> TextDelta:
    """What a piece of choice ``index`` is, before anybody asks for more or for an end."""
    return TextDelta(
        index=index,
        text="" if isinstance(piece, Thought | ToolCall) else piece,
        token_ids=(token_of(piece.name if isinstance(piece, ToolCall) else piece),),
        reasoning=str(piece) if isinstance(piece, Thought) else "",
        tool_calls=(piece,) if isinstance(piece, ToolCall) else (),
    )


@lru_cache(maxsize=WORDS_REMEMBERED_MAX)
def token_of(word: str) -> int:
    """The token id that stands for a word or piece."""
    return zlib.crc32(word.encode())
