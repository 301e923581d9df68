"""An answer as the pieces in which it was streamed: how they are found, recorded, and made again from the record.

A stream that is followed again, from the middle and after a restart, has the events that it had: so the log keeps
where each piece ended, which is a number for each.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from manent.domain.delta_sizes import DeltaSizes, delta_sizes
from manent.domain.generation import TextDelta, TokenLogprobs
from manent.domain.messages import ToolCall


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One of: text with the log probabilities that came with it, reasoning, or a whole tool call."""

    text: str = ""
    reasoning: str = ""
    call: ToolCall | None = None
    logprobs: tuple[TokenLogprobs, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PieceSizes:
    """The pieces of an answer in their order, without their content.

    Of ``sizes`` a positive one counts characters of text, a negative one those of reasoning, and 0 is a tool call.
    ``logprobs`` counts the log probabilities of each piece of text; it is empty where none were asked for. Those are of
    responses; a streamed chat has ``deltas`` alone.
    """

    sizes: tuple[int, ...] = ()
    logprobs: tuple[int, ...] = ()
    deltas: DeltaSizes | None = None


class PieceReader:
    """Takes deltas apart. Log probabilities without text wait for the next text."""

    def __init__(self) -> None:
        self._waiting: list[TokenLogprobs] = []

    def push(self, delta: TextDelta) -> list[Piece]:
        """The pieces of the next delta."""
        pieces = [Piece(reasoning=delta.reasoning)] if delta.reasoning else []
        self._waiting.extend(delta.logprobs)
        if delta.text:
            pieces.append(Piece(text=delta.text, logprobs=tuple(self._waiting)))
            self._waiting.clear()
        return [*pieces, *(Piece(call=call) for call in delta.tool_calls)]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedOutput:
    """The output of a completion as an event has it."""

    text: str
    reasoning: str
    tool_calls: tuple[ToolCall, ...]
    logprobs: tuple[TokenLogprobs, ...]
    sizes: PieceSizes | None

    def pieces(self) -> list[Piece]:
        """The pieces as they were streamed or, where their sizes were not recorded, the fewest that there can be."""
        if self.sizes is None or self.sizes.deltas is not None:
            whole = TextDelta(
                text=self.text,
                token_ids=(),
                logprobs=self.logprobs,
                reasoning=self.reasoning,
                tool_calls=self.tool_calls,
            )
            return PieceReader().push(whole)
        return list(_restored(self, self.sizes))


def chat_sizes(deltas: Sequence[TextDelta]) -> PieceSizes:
    """What is recorded of how a chat was streamed."""
    return PieceSizes(deltas=delta_sizes(deltas))


def pieces_of(deltas: Iterable[TextDelta]) -> list[Piece]:
    """The pieces of all of ``deltas``."""
    reader = PieceReader()
    return [piece for delta in deltas for piece in reader.push(delta)]


def sizes_of(deltas: Iterable[TextDelta], *, with_logprobs: bool) -> PieceSizes:
    """What is recorded of the pieces of ``deltas``, those of a response."""
    pieces = pieces_of(deltas)
    return PieceSizes(
        sizes=tuple(len(piece.text) - len(piece.reasoning) for piece in pieces),
        logprobs=tuple(len(piece.logprobs) for piece in pieces if piece.text) if with_logprobs else (),
    )


def _restored(output: RecordedOutput, recorded: PieceSizes) -> Iterator[Piece]:
    text = reasoning = texts = calls = logprobs = 0
    for size in recorded.sizes:
        if size > 0:
            count = recorded.logprobs[texts] if texts < len(recorded.logprobs) else 0
            entries = output.logprobs[logprobs : logprobs + count]
            yield Piece(text=output.text[text : text + size], logprobs=entries)
            text, texts, logprobs = text + size, texts + 1, logprobs + count
        elif size < 0:
            yield Piece(reasoning=output.reasoning[reasoning : reasoning - size])
            reasoning -= size
        else:
            yield Piece(call=output.tool_calls[calls])
            calls += 1
