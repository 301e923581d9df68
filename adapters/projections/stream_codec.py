"""A batch of deltas as bytes: msgpack of the first one's number and the deltas."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import msgspec

from manent.domain.generation import TextDelta


@dataclass(frozen=True, slots=True)
class Batch:
    """Deltas in a row, the first of which has number ``start``."""

    start: int
    deltas: tuple[TextDelta, ...]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Batch)


def encode(start: int, deltas: Sequence[TextDelta]) -> bytes:
    """A batch as bytes."""
    return _encoder.encode(Batch(start, tuple(deltas)))


def decode(data: bytes) -> Batch | None:
    """A batch of bytes; None where they are none."""
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def joined(batches: Iterable[Batch], start: int) -> Sequence[TextDelta]:
    """The deltas from number ``start`` on, up to the first hole or repetition that does not fit."""
    deltas: list[TextDelta] = []
    number: int | None = None
    for batch in batches:
        if number is not None and batch.start != number:
            break
        if number is None and batch.start > start:
            break
        number = batch.start + len(batch.deltas)
        deltas.extend(batch.deltas[max(0, start - batch.start) :])
    return deltas


def frames(data: bytes) -> Iterator[bytes]:
    """The length-prefixed pieces of ``data``, less one at the end that is not whole."""
    at = 0
    while at + LENGTH_BYTES <= len(data):
        end = at + LENGTH_BYTES + int.from_bytes(data[at : at + LENGTH_BYTES], "big")
        if end > len(data):
            return
        yield data[at + LENGTH_BYTES : end]
        at = end


def framed(piece: bytes) -> bytes:
    """``piece`` behind its length."""
    return len(piece).to_bytes(LENGTH_BYTES, "big") + piece


LENGTH_BYTES = 4
