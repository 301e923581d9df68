"""What the first process of a sharded model tells the others: every change of its batch, before it makes it.

A frame travels as the server's do: a length, and msgpack. It is written to the standard input of a process, whose end
is the end of the first process: nobody outlives it.
"""

from __future__ import annotations

from typing import BinaryIO

import msgspec

from manent.adapters.inference.protocol import LENGTH, ProtocolError, check_length


class Insert(msgspec.Struct, frozen=True, tag=True):
    """A sequence joins: its tokens that are not evaluated yet, how many it may get, and what ends it."""

    segments: list[list[int]]
    max_tokens: int
    stop_token_ids: list[int]


class Remove(msgspec.Struct, frozen=True, tag=True):
    """These sequences leave, if they have not left by themselves."""

    uids: list[int]


class Step(msgspec.Struct, frozen=True, tag=True):
    """One evaluation, with at most so many tokens of each prompt."""

    prefill_tokens: int


class Hello(msgspec.Struct, frozen=True):
    """What a process says on its standard output before it joins the others; ``error`` is why it cannot."""

    weights_digest: str = ""
    error: str = ""


ShardFrame = Insert | Remove | Step

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[ShardFrame] = msgspec.msgpack.Decoder(ShardFrame)


def packed(frame: ShardFrame) -> bytes:
    """A frame as it travels, its length first."""
    body = _encoder.encode(frame)
    check_length(len(body))
    return LENGTH.pack(len(body)) + body


def read_frame(stream: BinaryIO) -> ShardFrame | None:
    """The next frame; None where the other end is gone.

    Raises:
        ProtocolError: what came is no frame.
    """
    head = stream.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    (length,) = LENGTH.unpack(head)
    check_length(length)
    body = stream.read(length)
    if len(body) < length:
        return None
    try:
        return _decoder.decode(body)
    except msgspec.DecodeError as error:
        raise ProtocolError(f"not a frame between shards: {error}") from error
