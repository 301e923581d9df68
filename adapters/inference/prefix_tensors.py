"""Pieces of a prefix cache as the tensors of a file, and back. Bytes cross threads, lazy arrays do not."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from manent.adapters.inference.prefix_files import ITEM_BYTES, DamagedFile, Header, Tensor
from manent.adapters.inference.prefix_layers import KVSegment, LayerStates

_NAMES = {
    mx.float32: "F32",
    mx.float16: "F16",
    mx.bfloat16: "BF16",
    mx.uint8: "U8",
    mx.int8: "I8",
    mx.uint16: "U16",
    mx.int16: "I16",
    mx.uint32: "U32",
    mx.int32: "I32",
    mx.int64: "I64",
}
_DTYPES = {name: dtype for dtype, name in _NAMES.items()}
_CARRIERS = {1: mx.uint8, 2: mx.uint16, 4: mx.uint32, 8: mx.uint64}


@dataclass(frozen=True, slots=True)
class RawPiece:
    """A piece as it was read: arrays of unsigned numbers, with the types and shapes that they stand for."""

    tokens: int
    layers: int
    states: list[list[tuple[str, Any]]] | None
    arrays: Mapping[str, tuple[mx.array | None, str, tuple[int, ...]]]


def tensors_of(segment: KVSegment | None, snapshot: LayerStates | None) -> tuple[list[Tensor], str]:
    """The arrays as tensors that hold their memory, and in JSON what stands beside them; on MLX's thread."""
    arrays: dict[str, mx.array] = {}
    for layer, pair in enumerate(segment.layers if segment is not None else ()):
        if pair is not None:
            arrays[f"keys.{layer}"], arrays[f"values.{layer}"] = pair
    states: list[list[tuple[str, Any]]] = []
    for layer, state in enumerate(snapshot.states if snapshot is not None else ()):
        arrays |= {f"state.{layer}.{path}": value for path, value in state if isinstance(value, mx.array)}
        states.append([(path, "array" if isinstance(value, mx.array) else value) for path, value in state])
    carried = {name: array.view(_CARRIERS[array.dtype.size]) for name, array in arrays.items() if array.size}
    mx.eval(carried)
    tensors = [
        Tensor(
            name,
            _NAMES[array.dtype],
            tuple(array.shape),
            memoryview(carried[name]).cast("B") if name in carried else memoryview(b""),  # type: ignore[arg-type]  # an evaluated array is a buffer
        )
        for name, array in arrays.items()
    ]
    described = {
        "tokens": segment.tokens if segment is not None else 0,
        "layers": len(segment.layers) if segment is not None else 0,
        "states": states if snapshot is not None else None,
    }
    return tensors, json.dumps(described)


def raw_piece(header: Header, tensors: Mapping[str, Tensor]) -> RawPiece:
    """A file's content; on any thread.

    Raises:
        DamagedFile: it does not hold together.
    """
    described = json.loads(header.metadata["state"])
    arrays = {}
    for tensor in tensors.values():
        size = ITEM_BYTES[tensor.dtype]
        flat = mx.array(_cast(tensor.data, size)) if math.prod(tensor.shape) else None
        arrays[tensor.name] = (flat, tensor.dtype, tensor.shape)
    piece = RawPiece(described["tokens"], described["layers"], described["states"], arrays)
    if piece.states is not None and any(
        value == "array" and f"state.{layer}.{path}" not in arrays
        for layer, state in enumerate(piece.states)
        for path, value in state
    ):
        raise DamagedFile("a state is missing")
    return piece


def piece_of(raw: RawPiece) -> tuple[KVSegment, LayerStates | None]:
    """The segment and the snapshot of a piece; on MLX's thread."""
    arrays = {name: _array(*array) for name, array in raw.arrays.items()}
    mx.eval(arrays)
    pairs = tuple(
        (arrays[f"keys.{layer}"], arrays[f"values.{layer}"]) if f"keys.{layer}" in arrays else None
        for layer in range(raw.layers)
    )
    if raw.states is None:
        return KVSegment(raw.tokens, pairs), None
    states = tuple(
        tuple((path, arrays[f"state.{layer}.{path}"] if value == "array" else value) for path, value in state)
        for layer, state in enumerate(raw.states)
    )
    return KVSegment(raw.tokens, pairs), LayerStates(states)


def _array(flat: mx.array | None, dtype: str, shape: tuple[int, ...]) -> mx.array:
    if flat is None:
        return mx.zeros(shape, _DTYPES[dtype])
    return flat.view(_DTYPES[dtype]).reshape(shape)


def _cast(data: memoryview, item_bytes: int) -> Any:
    """The bytes as unsigned numbers of a size."""
    match item_bytes:
        case 1:
            return data.cast("B")
        case 2:
            return data.cast("H")
        case 4:
            return data.cast("I")
        case _:
            return data.cast("Q")
