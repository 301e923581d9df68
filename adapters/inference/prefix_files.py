"""A piece of a prefix cache as a file: safetensors, written whole or not at all, checked to the last byte when read.

The metadata's ``sha256`` is over the file with sixty-four zeros in its place. Any tool for safetensors reads these.
Knows no MLX: a tensor is a name, a type, a shape and bytes.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

from manent.adapters.inference.durable import write_through

FORMAT = "manent-prefix/1"
SUFFIX = ".safetensors"
UNFINISHED_SUFFIX = ".unfinished"
ITEM_BYTES = {
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "F64": 8,
    "U8": 1,
    "I8": 1,
    "U16": 2,
    "I16": 2,
    "U32": 4,
    "I32": 4,
    "I64": 8,
}

_HEADER_MAX_BYTES = 8 * 2**20
_LENGTH = struct.Struct("<Q")
_UNSIGNED = "0" * 64
_CHUNK_BYTES = 4 * 2**20


class DamagedFile(Exception):
    """A file is not what it should be: cut off, changed, or written by something else."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """An array; ``dtype`` is safetensors' name, ``data`` its bytes in row-major order."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: memoryview


@dataclass(frozen=True, slots=True)
class Header:
    """What stands in front of the bytes of a file; ``begins`` is where the bytes do."""

    metadata: Mapping[str, str]
    tensors: Mapping[str, Mapping[str, Any]]
    begins: int


def write_file(path: Path, tensors: Sequence[Tensor], metadata: Mapping[str, str]) -> int:
    """Write a file that appears complete or not at all, also when the power goes; readable by its owner only.

    Returns:
        Its size in bytes.

    Raises:
        OSError: it could not be written; nothing is left.
    """
    head = _head(tensors, {**metadata, "format": FORMAT, "sha256": _UNSIGNED})
    digest = hashlib.sha256(head)
    temporary = path.with_suffix(UNFINISHED_SUFFIX)
    try:
        temporary.touch(mode=0o600)
        with temporary.open("wb", buffering=0) as stream:
            _write_all(stream, head)
            for tensor in tensors:
                digest.update(tensor.data)
                _write_all(stream, tensor.data)
            size = stream.tell()
            stream.seek(head.index(_UNSIGNED.encode()))
            _write_all(stream, digest.hexdigest().encode())
            os.fsync(stream.fileno())
        temporary.rename(path)
        write_through(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return size


def read_header(path: Path) -> tuple[Header, bytes]:
    """The header, and the tokens that the file belongs behind and holds (packed); its length is checked, its bytes not.

    Raises:
        DamagedFile: it is cut off, or no such file at all.
        OSError: it cannot be read.
    """
    with path.open("rb", buffering=0) as stream:
        header = _read_header(stream)
        size = os.fstat(stream.fileno()).st_size
        if size != header.begins + max((tensor["data_offsets"][1] for tensor in header.tensors.values()), default=0):
            raise DamagedFile(f"it has {size} bytes, which is not what its header says")
        begin, end = header.tensors["tokens"]["data_offsets"]
        stream.seek(header.begins + begin)
        return header, stream.read(end - begin)


def read_file(path: Path) -> tuple[Header, dict[str, Tensor]]:
    """The whole content, its checksum verified.

    Raises:
        DamagedFile: a byte is not as it was written.
        OSError: it cannot be read.
    """
    content = bytearray(path.stat().st_size)
    with path.open("rb", buffering=0) as stream:
        header = _read_header(stream)
        stream.seek(0)
        view, filled = memoryview(content), 0
        while count := stream.readinto(view[filled : filled + _CHUNK_BYTES]):
            filled += count
    said = header.metadata.get("sha256", "")
    place = content.find(said.encode(), 0, header.begins)
    if len(said) != len(_UNSIGNED) or place < 0 or filled != len(content):
        raise DamagedFile("it has no checksum")
    content[place : place + len(said)] = _UNSIGNED.encode()
    if hashlib.sha256(content).hexdigest() != said:
        raise DamagedFile("its checksum is wrong")
    data = memoryview(content).toreadonly()[header.begins :]
    return header, {
        name: Tensor(name, told["dtype"], tuple(told["shape"]), data[slice(*told["data_offsets"])])
        for name, told in header.tensors.items()
    }


def _head(tensors: Sequence[Tensor], metadata: Mapping[str, str]) -> bytes:
    told: dict[str, Any] = {"__metadata__": dict(metadata)}
    offset = 0
    for tensor in tensors:
        told[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + tensor.data.nbytes],
        }
        offset += tensor.data.nbytes
    text = json.dumps(told, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return _LENGTH.pack(len(text)) + text


def _read_header(stream: FileIO) -> Header:
    try:
        (length,) = _LENGTH.unpack(stream.read(_LENGTH.size))
        if length > _HEADER_MAX_BYTES:
            raise DamagedFile(f"its header has {length} bytes")
        told = json.loads(stream.read(length))
        metadata = told.pop("__metadata__")
        if metadata["format"] != FORMAT or "tokens" not in told:
            raise DamagedFile("it is no piece of a prefix cache")
        for tensor in told.values():
            begin, end = tensor["data_offsets"]
            if not 0 <= begin <= end or end - begin != ITEM_BYTES[tensor["dtype"]] * math.prod(tensor["shape"]):
                raise DamagedFile("its header contradicts itself")
    except (ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise DamagedFile("its header cannot be read") from error
    return Header(metadata, told, _LENGTH.size + length)


def _write_all(stream: FileIO, data: bytes | memoryview) -> None:
    rest = memoryview(data).cast("B")
    while rest:
        rest = rest[stream.write(rest[:_CHUNK_BYTES]) :]
