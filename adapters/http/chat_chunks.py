"""Chunks of one completion. Encoded by msgspec: this runs for every few tokens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec

from manent.adapters.http.answers import finish_reasons, logprobs_answer, system_fingerprint, usage_members
from manent.adapters.http.delta_feed import Taken, taken
from manent.adapters.http.stream_cursor import Chunk, Cursor
from manent.domain.errors import StreamPassed
from manent.domain.events import CompletionGenerated
from manent.domain.generation import TextDelta
from manent.domain.messages import ToolCall
from manent.domain.usecases.running import Accepted, RunningCompletion


class ChunkEncoder:
    """Encodes from the first chunk on or, once it was told where its reader stands, from there.

    Each has an id (``Cursor``). What comes before a cursor is encoded and thrown away, so that what follows it
    is the same to the byte, whenever and wherever it is encoded.
    """

    def __init__(self, running: RunningCompletion, accepted: Accepted, *, include_usage: bool) -> None:
        self._include_usage = include_usage
        self._parameters = accepted.requested.parameters
        self._calls: Counter[int] = Counter()
        self._chars = 0
        self._start = self._end = self._events = 0
        self._skipped = 0
        self._frame: dict[str, Any] = {
            "id": running.completion_id,
            "object": "chat.completion.chunk",
            "created": accepted.requested.requested_at_us // 1_000_000,
            "model": accepted.requested.model_id,
            "choices": [],
            "system_fingerprint": None,
            "service_tier": "default",
        }
        if running.session_id is not None:
            self._frame["session_id"] = running.session_id
        if include_usage:
            self._frame["usage"] = None

    def go_on(self, cursor: Cursor, deltas: Sequence[TextDelta]) -> tuple[list[Chunk], int]:
        """What is left of the batch in which a reader stopped, and the number of the delta behind it.

        ``deltas`` are all that the completion has so far. Where they are not those that the reader saw, because the
        log tells them in other pieces, an answer of one text is gone on with at the reader's last character.

        Raises:
            StreamPassed: the answer has more than one text, or fewer characters.
        """
        opening = self.opening()
        if cursor.end == 0:
            self._skipped = max(0, cursor.events - len(opening))
            return opening[cursor.events :], 0
        if cursor.end <= len(deltas):
            self.batch(taken(0, deltas[: cursor.start]))
            events = self.batch(taken(cursor.start, deltas[cursor.start : cursor.end]))
            if cursor.start == cursor.end and self._chars == cursor.chars:
                self._skipped = cursor.events
                return [], cursor.end
            if 0 < cursor.events <= len(events) and events[cursor.events - 1].cursor == cursor:
                return events[cursor.events :], cursor.end
        return self._behind_chars(cursor, taken(0, deltas))

    def _behind_chars(self, cursor: Cursor, all_of_it: Taken) -> tuple[list[Chunk], int]:
        piece = all_of_it.pieces[0] if all_of_it.pieces else None
        chars = 0 if piece is None else len(piece.reasoning) + len(piece.text)
        if self._parameters.n > 1 or chars < cursor.chars or (piece and (piece.tool_calls or piece.logprobs)):
            raise StreamPassed("what followed this event is not kept any more; retrieve the completion instead")
        if cursor.start == cursor.end:  # behind all deltas
            self._skipped = cursor.events
        if piece is None:
            return [], all_of_it.end
        thought = min(len(piece.reasoning), cursor.chars)
        rest = replace(piece, reasoning=piece.reasoning[thought:], text=piece.text[cursor.chars - thought :])
        self._begin(all_of_it.start, all_of_it.end)
        self._chars, self._events = cursor.chars, int(bool(piece.reasoning) and not rest.reasoning)
        return self._piece(rest) if rest.reasoning or rest.text else [], all_of_it.end

    def opening(self) -> list[Chunk]:
        """The first chunk of each choice, which says who speaks."""
        delta = {"role": "assistant", "content": "", "refusal": None}
        return [self._event(_choice(index, delta)) for index in range(self._parameters.n)]

    def batch(self, deltas: Taken) -> list[Chunk]:
        """Chunks of reasoning, of text and of tool calls, each of which comes in two: who is called, and with what."""
        if deltas.end > 0:
            self._begin(deltas.start, deltas.end)
        return [event for piece in deltas.pieces for event in self._piece(piece)]

    def finish(self, generated: CompletionGenerated, end: int) -> list[Chunk]:
        """The last chunks, behind ``end`` deltas: why each choice ended and, where it was asked for, the usage."""
        if end > 0:
            self._begin(end, end)
        self._frame["system_fingerprint"] = system_fingerprint(generated.provenance)
        last = [
            self._event(_choice(index, {}, finish_reason=reason))
            for index, reason in enumerate(finish_reasons(generated))
        ]
        if self._include_usage:
            self._frame["usage"] = usage_members([generated.usage])
            last.append(self._event())
        return last[self._skipped :]

    def _piece(self, piece: TextDelta) -> list[Chunk]:
        events = []
        if piece.reasoning:
            self._chars += len(piece.reasoning)
            thought = {"reasoning": piece.reasoning, "reasoning_content": piece.reasoning}
            events.append(self._event(_choice(piece.index, thought)))
        if piece.text or piece.logprobs:
            self._chars += len(piece.text)
            logprobs = logprobs_answer(piece.logprobs) if self._parameters.logprobs else None
            events.append(self._event(_choice(piece.index, {"content": piece.text}, logprobs=logprobs)))
        for call in piece.tool_calls:
            number = self._calls[piece.index]
            self._calls[piece.index] += 1
            self._chars += len(call.arguments)
            events += [
                self._event(_choice(piece.index, {"tool_calls": [part]})) for part in call_fragments(call, number)
            ]
        return events

    def _begin(self, start: int, end: int) -> None:
        self._start, self._end, self._events = start, end, 0

    def _event(self, *choices: dict[str, Any]) -> Chunk:
        self._events += 1
        cursor = Cursor(start=self._start, end=self._end, events=self._events, chars=self._chars)
        self._frame["choices"] = choices
        return Chunk(cursor, msgspec.json.encode(self._frame))


def call_fragments(call: ToolCall, index: int) -> list[dict[str, Any]]:
    """A tool call as clients put it together: id, type and name in the first fragment, the arguments behind it."""
    first = {"index": index, "id": call.id, "type": "function", "function": {"name": call.name, "arguments": ""}}
    return [first, {"index": index, "function": {"arguments": call.arguments}}]


def _choice(
    index: int, delta: dict[str, Any], *, logprobs: dict[str, Any] | None = None, finish_reason: str | None = None
) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
