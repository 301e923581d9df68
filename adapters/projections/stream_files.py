"""Streams in files, one each, that are appended to without waiting for the disk.

What the kernel has taken outlives the process, also after ``kill -9``; it does not outlive the machine, and need not:
what was acknowledged is in the log. The folder belongs to one server.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from manent.adapters.projections.stream_codec import decode, encode, framed, frames, joined
from manent.adapters.projections.stream_limits import StreamLimits
from manent.domain.generation import TextDelta
from manent.domain.streams import StreamKey

SUFFIX = ".stream"

_log = logging.getLogger("manent.streams")


@dataclass(slots=True)
class _File:
    """One stream's file; ``handle`` is None where it took no more, ``ended_s`` is when it ended."""

    path: Path
    handle: int | None
    size_bytes: int = 0
    ended_s: float = 0.0


class FileStreams:
    """Implements ``StreamBuffer`` in ``folder``, which only its owner may read. The oldest that ended make room."""

    def __init__(
        self, folder: Path, limits: StreamLimits | None = None, *, now_s: Callable[[], float] = time.time
    ) -> None:
        self._folder = folder
        self._limits = limits or StreamLimits()
        self._now_s = now_s
        self._open: dict[StreamKey, _File] = {}
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._ended = deque(sorted(self._left(), key=lambda file: file.ended_s))
        self._total_bytes = sum(file.size_bytes for file in self._ended)

    async def append(self, stream: StreamKey, start: int, deltas: Sequence[TextDelta]) -> None:
        """See ``StreamBuffer.append``."""
        file = self._open.get(stream)
        if file is not None and file.handle is None:
            return
        data = framed(encode(start, deltas))
        try:
            if file is None:
                file = self._open[stream] = self._opened(stream)
            self._make_room(file, len(data))
            self._write(file, data)
        except OSError as error:
            _log.warning("the stream of %s cannot be resumed from here on: %s", stream.completion_id, error)
            if file is None:
                file = self._open[stream] = _File(self._path(stream), None)
            self._close(file)

    async def read(self, stream: StreamKey, start: int) -> Sequence[TextDelta]:
        """See ``StreamBuffer.read``."""
        try:
            data = await asyncio.to_thread(self._path(stream).read_bytes)
        except OSError:
            return ()
        return joined((batch for piece in frames(data) if (batch := decode(piece)) is not None), start)

    async def end(self, stream: StreamKey) -> None:
        """See ``StreamBuffer.end``."""
        file = self._open.pop(stream, None)
        if file is not None:
            self._close(file)
            file.ended_s = self._now_s()
            self._ended.append(file)
        self._forget_old()

    def close(self) -> None:
        """Close what is open; the files stay."""
        for file in self._open.values():
            self._close(file)
        self._open.clear()

    def _opened(self, stream: StreamKey) -> _File:
        path = self._path(stream)
        return _File(path, os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600))

    def _write(self, file: _File, data: bytes) -> None:
        written = os.write(file.handle, data) if file.handle is not None else 0
        file.size_bytes += written
        self._total_bytes += written
        if written < len(data):
            raise OSError("the disk took a part only")

    def _make_room(self, file: _File, size_bytes: int) -> None:
        if file.size_bytes + size_bytes > self._limits.stream_bytes_max:
            raise OSError(f"it is over the bound of {self._limits.stream_bytes_max} bytes for one stream")
        while self._ended and self._total_bytes + size_bytes > self._limits.total_bytes_max:
            self._forget(self._ended.popleft())
        if self._total_bytes + size_bytes > self._limits.total_bytes_max:
            raise OSError(f"all streams are at the bound of {self._limits.total_bytes_max} bytes")

    def _forget_old(self) -> None:
        # A clock that was set back makes files of the future; they are as good as old.
        while self._ended and not 0 <= self._now_s() - self._ended[0].ended_s <= self._limits.keep_s:
            self._forget(self._ended.popleft())

    def _forget(self, file: _File) -> None:
        file.path.unlink(missing_ok=True)
        self._total_bytes -= file.size_bytes

    @staticmethod
    def _close(file: _File) -> None:
        if file.handle is not None:
            os.close(file.handle)
            file.handle = None

    def _left(self) -> list[_File]:
        """What an earlier server left."""
        left = [(path, path.stat()) for path in self._folder.glob(f"*{SUFFIX}")]
        return [_File(path, None, stat.st_size, stat.st_mtime) for path, stat in left]

    def _path(self, stream: StreamKey) -> Path:
        name = hashlib.sha256(f"{stream.tenant}\0{stream.completion_id}".encode()).hexdigest()
        return self._folder / f"{name}{SUFFIX}"
