"""A session's context as bytes: frames, one for each write, of which the last says which version they add up to.

A frame is a body (MessagePack) and a trailer of 16 bytes: CRC-32 of the body, its length, the version after it and
the number of frames so far, each an unsigned 32-bit integer in network order. Frames are read from the end, so that a
script in the server finds the version in the last bytes of a value, and a value that was cut anywhere is found out.
A trailer alone, of no frames, stands for a context that is too large to be kept.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, Literal

import msgspec

from manent.domain.history import History
from manent.domain.messages import ImageDetail, Message, Role
from manent.domain.projections import ContextUnreadable
from manent.domain.session import SessionState

TRAILER = struct.Struct(">IIII")
_MEMBERS = tuple(
    member.name for member in fields(SessionState) if member.name not in {"tenant", "session_id", "messages"}
)


class _Text(msgspec.Struct, array_like=True, gc=False):
    """A ``TextPart``."""

    text: str
    type: Literal["text"]


class _ToolCall(msgspec.Struct, array_like=True, gc=False):
    """A ``ToolCall``."""

    id: str
    name: str
    arguments: str
    custom: bool


class _Image(msgspec.Struct, array_like=True, gc=False):
    """An ``ImagePart``."""

    digest: str
    media_type: str
    width: int
    height: int
    data: bytes
    detail: ImageDetail
    text_before: int


class _Message(msgspec.Struct, array_like=True, gc=False):
    """A ``Message``, of the same members: read and checked in a third of the time, and made into one when needed."""

    message_id: str
    role: Role
    content: tuple[_Text, ...]
    name: str | None
    tool_calls: tuple[_ToolCall, ...]
    tool_call_id: str | None
    images: tuple[_Image, ...]
    reasoning: str | None


class _Body(msgspec.Struct, array_like=True):
    """What a write brought: members that changed, and messages behind the first ``kept`` of those before."""

    from_version: int
    kept: int
    changes: dict[str, Any]
    messages: list[_Message]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Body)


@dataclass(frozen=True, slots=True)
class Growth:
    """One frame, without the number that it gets where it is written. ``from_version`` 0 is a whole context."""

    from_version: int
    version: int
    body: bytes

    @property
    def checksum(self) -> int:
        """CRC-32 of the body."""
        return zlib.crc32(self.body)


def growth(state: SessionState, before: SessionState | None = None) -> Growth:
    """What is new in ``state`` since ``before``, or all of it."""
    start = before or SessionState(session_id=state.session_id, tenant=state.tenant)
    kept = state.messages.shared_length(start.messages)
    changes = {name: getattr(state, name) for name in _MEMBERS if getattr(state, name) != getattr(start, name)}
    if before is None:
        changes |= {"tenant": state.tenant, "session_id": state.session_id}
    messages = msgspec.convert(state.messages[kept:], list[_Message], from_attributes=True)
    body = _Body(from_version=start.version, kept=kept, changes=changes, messages=messages)
    return Growth(start.version, state.version, _encoder.encode(body))


def whole_value(grown: Growth, bytes_max: int) -> bytes:
    """The value of a context that is written as a whole; a trailer alone where it would have more than so many bytes.

    The script that writes contexts (scripts.py) makes the same of it.
    """
    body = grown.body
    if len(body) + TRAILER.size > bytes_max:
        return TRAILER.pack(0, 0, grown.version, 0)
    return body + TRAILER.pack(grown.checksum, len(body), grown.version, 1)


def version_of(tail: bytes) -> int | None:
    """The version that the last 16 bytes of a value say; 0 where there are no 16, None for what is too large."""
    if len(tail) < TRAILER.size:
        return 0
    version: int = TRAILER.unpack(tail)[2]
    return None if is_too_large(tail) else version


def is_too_large(value: bytes) -> bool:
    """Whether ``value`` stands for a context that is not kept."""
    return len(value) == TRAILER.size and TRAILER.unpack(value)[3] == 0


def read_state(value: bytes, tenant: str, session_id: str) -> SessionState:
    """The state that the frames of ``value`` add up to.

    Raises:
        ContextUnreadable: they were not written by ``growth``, or not for one another.
    """
    members: dict[str, Any] = {}
    messages: list[_Message] = []
    version = 0
    try:
        for body, version_after in _frames(value):
            if body.from_version != version or not 0 <= body.kept <= len(messages):
                raise ContextUnreadable(f"a frame goes on from version {body.from_version}, not {version}")
            members |= body.changes
            messages[body.kept :] = body.messages
            version = version_after
        state = msgspec.convert(members, SessionState)
    except (msgspec.MsgspecError, struct.error, TypeError, ValueError) as error:
        raise ContextUnreadable(f"a frame holds something else: {error}") from error
    if version == 0 or (state.version, state.tenant, state.session_id) != (version, tenant, session_id):
        raise ContextUnreadable("the frames are of another version or session")
    history = History.deferred(
        len(messages), partial(msgspec.convert, messages, list[Message], from_attributes=True), size_bytes=len(value)
    )
    return replace(state, messages=history)


def _frames(value: bytes) -> list[tuple[_Body, int]]:
    """The frames in their order, each with the version after it."""
    view, end, number = memoryview(value), len(value), None
    found: list[tuple[_Body, int]] = []
    while end > 0:
        checksum, length, version, frames = TRAILER.unpack_from(value, end - TRAILER.size)
        start = end - TRAILER.size - length
        if start < 0 or (number is not None and frames != number - 1):
            raise ContextUnreadable("a frame is missing")
        body = view[start : end - TRAILER.size]
        if zlib.crc32(body) != checksum:
            raise ContextUnreadable("a frame is damaged")
        found.append((_decoder.decode(body), version))
        end, number = start, frames
    if number != 1:
        raise ContextUnreadable("the first frame is missing")
    return found[::-1]
