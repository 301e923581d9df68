"""Files of events, as ``GET /v1/sessions/{id}/export?format=events`` writes them, read without trust.

A file is JSON Lines: one event a line in its wire form, oldest first; where the session is a fork, the events of its
ancestors stand before its own. A line that is not what its header promises, or not where it belongs, is refused by its
number.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

import msgspec

from manent.adapters.store.codec import decode_event
from manent.domain.errors import ImportRefused, LogCorrupt
from manent.domain.events import (
    DomainEvent,
    ErasedEvent,
    HistoryRevised,
    MessageAppended,
    SessionStarted,
    SystemPromptReplaced,
    session_stream,
)
from manent.domain.messages import Message
from manent.domain.ports import Ids
from manent.domain.replay_events import Fork
from manent.domain.response_events import ItemRemoved
from manent.domain.session import SessionState, evolve
from manent.domain.usecases.import_session import SessionFile

LINE_BYTES_MAX = 24 * 1024 * 1024
LINES_MAX = 250_000
SALT_BYTES = 32

Number = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Text = Annotated[str, msgspec.Meta(max_length=1024)]


class _Header(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    actor: Text
    causation_id: Text | None
    correlation_id: Text | None
    event_id: Text
    log_id: Text
    payload_digest: Text
    position: Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]
    recorded_at_us: Number
    request_id: Text | None
    schema_version: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
    stream_id: Text
    stream_version: Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]
    tenant: Text
    type: Text


class _Line(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    object: Literal["event"]
    header: _Header
    payload: msgspec.Raw
    salt: str | None


_decoder = msgspec.json.Decoder(_Line)


def read_events_file(data: bytes, ids: Ids) -> SessionFile:
    """The conversation at the end of a file of events.

    Raises:
        ImportRefused: it is empty, too long, or a line is wrong; the message names the line and what is wrong in it.
    """
    reading = _Reading()
    count = 0
    for number, line in _lines(data):
        count = number
        try:
            reading.take(_decoded(line))
        except _Wrong as wrong:
            raise ImportRefused(f"line {number}: {wrong}") from None
    if reading.last is None:
        raise ImportRefused("the file holds no events")
    return SessionFile(
        format="events",
        sha256=hashlib.sha256(data).hexdigest(),
        size_bytes=len(data),
        messages=tuple(replace(message, message_id=ids.new("msg_")) for message in reading.state.messages),
        metadata=dict(reading.state.metadata),
        events=count,
        origin_log_id=reading.last.log_id,
        origin=Fork(session_id=reading.state.session_id, version=reading.last.stream_version),
    )


class _Wrong(Exception):
    """What is wrong in a line."""


def _lines(data: bytes) -> Iterator[tuple[int, bytes]]:
    start, number = 0, 0
    while start < len(data):
        end = data.find(b"\n", start)
        end = len(data) if end < 0 else end
        number += 1
        if number > LINES_MAX:
            raise ImportRefused(f"line {number}: the file has more than {LINES_MAX} lines")
        if end - start > LINE_BYTES_MAX:
            raise ImportRefused(f"line {number}: it has {end - start} bytes; at most {LINE_BYTES_MAX} are allowed")
        yield number, data[start:end]
        start = end + 1


def _decoded(line: bytes) -> _Line:
    try:
        return _decoder.decode(line)
    except RecursionError:
        raise _Wrong("it is nested too deeply") from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        what = "it is empty" if not line.strip() else str(error)
        raise _Wrong(f"it is no event of a log: {what}") from None


@dataclass(slots=True)
class _Reading:
    """What the lines so far add up to."""

    state: SessionState = field(default_factory=lambda: SessionState(session_id="", tenant=""))
    last: _Header | None = None

    def take(self, line: _Line) -> None:
        """The next line."""
        header, event = line.header, _event(line)
        if self.last is not None:
            self._check_follows(self.last, header)
        if self.last is None or header.stream_id != self.last.stream_id:
            self._begin(header, event)
        elif header.stream_version != self.last.stream_version + 1:
            raise _Wrong(
                f"version {header.stream_version} of {header.stream_id} follows version {self.last.stream_version}: "
                "a line is doubled, missing or out of order"
            )
        if isinstance(event, HistoryRevised) and not 0 <= event.from_index <= len(self.state.messages):
            raise _Wrong(f"it revises message {event.from_index} of {len(self.state.messages)}")
        if isinstance(event, ItemRemoved) and not 0 <= event.message_index < len(self.state.messages):
            raise _Wrong(f"it removes from message {event.message_index} of {len(self.state.messages)}")
        _check_images(event)
        self.state = evolve(self.state, event)
        self.last = header

    def _check_follows(self, last: _Header, header: _Header) -> None:
        if (header.log_id, header.tenant) != (last.log_id, last.tenant):
            raise _Wrong("it is of another log or tenant than the lines before")
        if header.position <= last.position:
            raise _Wrong(f"position {header.position} follows {last.position}: a line is doubled or out of order")

    def _begin(self, header: _Header, event: DomainEvent) -> None:
        """A stream begins: the oldest session's, or that of a fork of what was read so far."""
        if header.stream_version != 1:
            raise _Wrong(f"{header.stream_id} begins with version {header.stream_version}: lines are missing before it")
        if not isinstance(event, SessionStarted) or header.stream_id != session_stream(event.session_id):
            raise _Wrong(f"{header.stream_id} does not begin with the SessionStarted of a session")
        before = None if self.last is None else Fork(session_id=self.state.session_id, version=self.state.version)
        if event.parent != before:
            told = "no session" if event.parent is None else f"{event.parent.session_id} at {event.parent.version}"
            found = "nothing" if before is None else f"{before.session_id} at {before.version}"
            raise _Wrong(f"session {event.session_id} is a fork of {told}, but {found} stands before it")
        self.state = SessionState(session_id=event.session_id, tenant=header.tenant, messages=self.state.messages)


def _event(line: _Line) -> DomainEvent:
    header, payload = line.header, bytes(line.payload)
    if payload == b"null" and line.salt is None:
        return ErasedEvent(type=header.type)
    if hashlib.sha256(_salt(line.salt) + payload).hexdigest() != header.payload_digest:
        raise _Wrong("its payload is not what its header's digest promises: the file was changed")
    try:
        return decode_event(header.type, header.schema_version, payload)
    except RecursionError:
        raise _Wrong("it is nested too deeply") from None
    except LogCorrupt as error:
        raise _Wrong(error.message) from None


def _check_images(event: DomainEvent) -> None:
    """Refuse images that are not what they are called by: everything else knows them by their digests."""
    messages: tuple[Message, ...] = ()
    match event:
        case MessageAppended():
            messages = (event.message,)
        case SystemPromptReplaced():
            messages = event.messages
    for image in (image for message in messages for image in message.images):
        if image.digest != f"sha256:{hashlib.sha256(image.data).hexdigest()}":
            raise _Wrong("an image is not what its digest promises")


def _salt(salt: str | None) -> bytes:
    try:
        decoded = base64.b64decode(salt or "", validate=True)
    except (binascii.Error, ValueError):
        decoded = b""
    if len(decoded) != SALT_BYTES:
        raise _Wrong(f"its salt is not {SALT_BYTES} bytes in base64")
    return decoded
