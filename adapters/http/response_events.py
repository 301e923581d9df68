"""The events of a response's stream, in OpenAI's order, each with its number. The same pieces give the same events."""

from __future__ import annotations

from typing import Any

import msgspec

from manent.adapters.http.answers import logprobs_answer
from manent.adapters.http.errors import row_of
from manent.adapters.http.response_answer import ResponseFrame
from manent.adapters.http.response_items import Output, OutputItem, custom_input
from manent.domain.errors import DomainError
from manent.domain.events import CompletionGenerated, CompletionOutcome
from manent.domain.items import ItemKind
from manent.domain.output_pieces import Piece
from manent.domain.usecases.read_responses import status_of

LAST_EVENTS = {"completed": "response.completed", "incomplete": "response.incomplete"}


def event_bytes(event: dict[str, Any], *, with_id: bool = False) -> bytes:
    """An event as OpenAI sends it: named and, unless its number is wanted there too, without an id."""
    name: str = event["type"]
    mark = b"id: %d\n" % event["sequence_number"] if with_id else b""
    return mark + b"event: " + name.encode() + b"\ndata: " + msgspec.json.encode(event) + b"\n\n"


def refusal_event(error: DomainError, number: int = 0) -> bytes:
    """What refuses a request whose stream is open already: every client reads one of its members."""
    told = {"type": row_of(error).type, "code": error.code, "message": error.message, "param": error.param}
    flat = {"code": error.code, "message": error.message, "param": error.param}
    return event_bytes({"type": "error", "sequence_number": number, **flat, "error": told})


class ResponseEvents:
    """Makes the events of one response; those up to number ``after`` are made and not sent."""

    def __init__(self, frame: ResponseFrame, *, after: int | None = None, with_ids: bool = False) -> None:
        self._frame = frame
        self._after = -1 if after is None else after
        self._with_ids = with_ids
        self._number = 0
        self._begun = False
        self._output = Output(frame.response_id)
        self._pieces: list[Piece] = []

    def start(self) -> bytes:
        """The first events. A response in the background is queued until there is something to tell of it."""
        if self._frame.details.background:
            response = self._frame.queued()
            return self._event("response.created", response=response) + self._event(
                "response.queued", response=response
            )
        return self._event("response.created", response=self._frame.in_progress()) + self._begin()

    def piece(self, piece: Piece) -> bytes:
        """The events of the next piece."""
        self._pieces.append(piece)
        before = self._open_item
        begins = self._output.add(piece)
        item = self._output.items[-1]
        data = self._begin()
        if begins:
            data += b"" if before is None else self._close(before, "completed")
            data += self._open(item)
        if item.kind is ItemKind.CALL:
            return data + self._call(item)
        delta = _of(item, content_index=0, delta=piece.text or piece.reasoning)
        if item.kind is ItemKind.REASONING:
            return data + self._event("response.reasoning_text.delta", **delta)
        logprobs = logprobs_answer(piece.logprobs)["content"]
        return data + self._event("response.output_text.delta", **delta, logprobs=logprobs)

    def end(self, outcome: CompletionOutcome) -> bytes:
        """The last events. An answer of nothing is a message of nothing."""
        data = self._begin()
        if isinstance(outcome, CompletionGenerated) and not self._output.items:
            self._output.add(Piece())
            data += self._open(self._output.items[-1])
        status = status_of(outcome)
        if self._open_item is not None:
            data += self._close(self._open_item, "completed" if status == "completed" else "incomplete")
        last = LAST_EVENTS.get(status, "response.failed")
        return data + self._event(last, response=self._frame.ended(outcome, self._pieces))

    def broken(self, error: DomainError) -> bytes:
        """The last event where the log has no end yet: it could not be recorded in time, or there is a defect."""
        data, response = self._begin(), self._frame.in_progress()
        if self._open_item is not None:
            data += self._close(self._open_item, "incomplete")
        told = {"code": "server_error", "message": f"{error.code}: {error.message}"}
        output = self._output.answers(whole=False)
        failed = {**response, "status": "failed", "error": told, "output": output}
        return data + self._event("response.failed", response=failed)

    def lost(self, error: DomainError) -> bytes:
        """What ends this stream and not the response, which somebody else generates."""
        return refusal_event(error, max(self._number, self._after + 1))

    def _begin(self) -> bytes:
        """Its generation begins; told once."""
        if self._begun:
            return b""
        self._begun = True
        return self._event("response.in_progress", response=self._frame.in_progress())

    @property
    def _open_item(self) -> OutputItem | None:
        """The item that is not done; a call is as soon as it is there."""
        last = self._output.items[-1] if self._output.items else None
        return None if last is None or last.kind is ItemKind.CALL else last

    def _open(self, item: OutputItem) -> bytes:
        begun = item.answer("in_progress")
        data = self._event("response.output_item.added", output_index=item.index, item=begun)
        if item.kind is ItemKind.CALL:
            return data
        part = _of(item, content_index=0, part=item.part(begun=True))
        return data + self._event("response.content_part.added", **part)

    def _close(self, item: OutputItem, status: str) -> bytes:
        if item.kind is ItemKind.REASONING:
            told = _of(item, content_index=0, text=item.text)
            data = self._event("response.reasoning_text.done", **told)
        else:
            logprobs = logprobs_answer(item.logprobs)["content"]
            told = _of(item, content_index=0, text=item.text, logprobs=logprobs)
            data = self._event("response.output_text.done", **told)
        data += self._event("response.content_part.done", **_of(item, content_index=0, part=item.part()))
        return data + self._done(item, status)

    def _call(self, item: OutputItem) -> bytes:
        """All of a call; it comes as a whole."""
        call = item.call
        if call is None:
            return b""
        if call.custom:
            text = custom_input(call)
            data = self._event("response.custom_tool_call_input.delta", **_of(item, delta=text))
            data += self._event("response.custom_tool_call_input.done", **_of(item, input=text))
            return data + self._done(item, "completed")
        data = self._event("response.function_call_arguments.delta", **_of(item, delta=call.arguments))
        done = _of(item, name=call.name, arguments=call.arguments)
        return data + self._event("response.function_call_arguments.done", **done) + self._done(item, "completed")

    def _done(self, item: OutputItem, status: str) -> bytes:
        return self._event("response.output_item.done", output_index=item.index, item=item.answer(status))

    def _event(self, kind: str, **members: Any) -> bytes:
        number = self._number
        self._number += 1
        if number <= self._after:
            return b""
        return event_bytes({"type": kind, "sequence_number": number, **members}, with_id=self._with_ids)


def _of(item: OutputItem, **members: Any) -> dict[str, Any]:
    return {"item_id": item.item_id, "output_index": item.index, **members}
