"""The disk tier of a prefix cache: which files there are, writing and reading them in the background, and their bounds.

    <folder>/<model>/<scope>/<random>.safetensors

Names tell nothing: model and scope are keyed digests. The files' own headers are the index; it is read when a runner
starts. The byte bound holds for the whole folder, whoever wrote into it, and is measured, not counted.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from manent.adapters.inference.prefix_files import (
    SUFFIX,
    DamagedFile,
    Header,
    Tensor,
    read_file,
    read_header,
    write_file,
)
from manent.adapters.inference.prefix_tree import TOKEN_BYTES, StoredPiece

Build = Callable[[Header, dict[str, Tensor]], object]
"""Makes of a file's content what its reader wants; called on the reading thread."""

FILES_MAX = 8192
UNWRITTEN_MAX_BYTES = 512 * 2**20
"""What may wait to be written; it is held in memory meanwhile. More is not written at all."""

FREE_KEPT_BYTES = 2 * 2**30
"""The disk is never filled beyond this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownFile:
    """A file that was found: whose it is, and what it holds."""

    scope: str
    tokens: bytes
    piece: StoredPiece


@dataclass(slots=True, kw_only=True)
class DiskCounts:
    """What happened so far."""

    written: int = 0
    skipped: int = 0
    removed: int = 0
    damaged: int = 0


def free_bytes_of(folder: Path) -> int:
    """What is free on the disk that a folder is on."""
    return shutil.disk_usage(folder).free


class PrefixDisk:
    """The files of one model. Methods are for the evaluating thread, and none waits for the disk but ``scan``."""

    def __init__(
        self,
        folder: Path,
        *,
        model: str,
        identity: str,
        bytes_max: int,
        free_bytes: Callable[[Path], int] = free_bytes_of,
    ) -> None:
        self._folder = folder
        self._own = folder / model
        self._identity = identity
        self._bytes_max = bytes_max
        self._free_bytes = free_bytes
        self._writing = ThreadPoolExecutor(1, thread_name_prefix="prefix-writer")
        self._reading = ThreadPoolExecutor(1, thread_name_prefix="prefix-reader")
        self._lock = Lock()
        self._unwritten: dict[str, Future[None]] = {}
        self._unwritten_bytes = 0
        self._gone: set[str] = set()
        self.counts = DiskCounts()

    def scan(self) -> list[KnownFile]:
        """All files of this model that can be used; every other one in its folder is removed."""
        known = []
        self._own.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in sorted(self._own.glob("*/*")):
            try:
                header, tokens = read_header(path)
                self._check(path, header)
                known.append(KnownFile(scope=path.parent.name, tokens=tokens, piece=self._piece(path, header, tokens)))
            except (DamagedFile, OSError, ValueError, KeyError):
                self._remove(path, damaged=True)
        return known[:FILES_MAX]

    def write(
        self,
        scope: str,
        tokens: bytes,
        tensors: Sequence[Tensor],
        *,
        start: int,
        conversation: str | None,
        has_snapshot: bool,
        state: str,
    ) -> StoredPiece | None:
        """Write in the background; None if too much waits already.

        Args:
            scope: whose it is.
            tokens: the sequence up to the end of the piece, packed.
            tensors: the piece's arrays; their memory is held until they are written.
            start: where the piece begins.
            conversation: what it can be forgotten by.
            has_snapshot: whether there is a snapshot behind the last token.
            state: what else must be known to read it.
        """
        size = sum(tensor.data.nbytes for tensor in tensors)
        name = f"{scope}/{secrets.token_hex(16)}{SUFFIX}"
        metadata = {
            "identity": self._identity,
            "start": str(start),
            "conversation": conversation or "",
            "snapshot": "yes" if has_snapshot else "",
            "state": state,
        }
        with self._lock:
            if self._unwritten_bytes + size > UNWRITTEN_MAX_BYTES:
                self.counts.skipped += 1
                return None
            self._unwritten_bytes += size
            content = [*tensors, Tensor("tokens", "U32", (len(tokens) // TOKEN_BYTES,), memoryview(tokens))]
            self._unwritten[name] = self._writing.submit(self._write, name, content, metadata, size)
        return StoredPiece(
            name=name,
            start=start,
            stop=len(tokens) // TOKEN_BYTES,
            has_snapshot=has_snapshot,
            size_bytes=size,
            conversation=conversation,
        )

    def read(self, pieces: Iterable[StoredPiece], build: Build) -> Future[dict[str, object]]:
        """What ``build`` makes of each piece, by name, in the background; a piece that cannot be used is missing."""
        return self._reading.submit(self._read, tuple(pieces), build)

    def touch(self, pieces: Iterable[StoredPiece]) -> None:
        """Note that these were used: what was used longest ago is removed first."""
        names = [piece.name for piece in pieces]
        self._writing.submit(self._touch, names)

    def delete(self, names: Iterable[str]) -> None:
        """Remove files; those that are being written, too."""
        self._writing.submit(self._delete, tuple(names))

    def take_gone(self) -> set[str]:
        """The files that were removed or could not be written since this was last asked."""
        with self._lock:
            gone, self._gone = self._gone, set()
        return gone

    def flush(self) -> None:
        """Wait until everything is written."""
        for future in list(self._unwritten.values()):
            future.result()
        self._writing.submit(lambda: None).result()

    def _write(self, name: str, tensors: Sequence[Tensor], metadata: dict[str, str], size: int) -> None:
        written = False
        try:
            if self._make_room(size):
                path = self._own / name
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                write_file(path, tensors, metadata)
                written = True
        except OSError:
            written = False
        finally:
            self.counts.written += written
            self.counts.skipped += not written
            if not written:
                self._note_gone(name)
            with self._lock:
                self._unwritten_bytes -= size
                del self._unwritten[name]

    def _check(self, path: Path, header: Header) -> None:
        if path.suffix != SUFFIX or header.metadata.get("identity") != self._identity:
            raise DamagedFile("it belongs to another version of the model, or of what evaluates it")

    def _read(self, pieces: Sequence[StoredPiece], build: Build) -> dict[str, object]:
        built: dict[str, object] = {}
        for piece in pieces:
            with self._lock:
                unwritten = self._unwritten.get(piece.name)
            if unwritten is not None:
                unwritten.result()
            path = self._own / piece.name
            try:
                header, tensors = read_file(path)
                self._check(path, header)
                built[piece.name] = build(header, tensors)
                os.utime(path)
            except FileNotFoundError:
                self._note_gone(piece.name)
            except (DamagedFile, OSError, ValueError, KeyError):
                self._remove(path, damaged=True)
        return built

    def _touch(self, names: Sequence[str]) -> None:
        for name in names:
            with contextlib.suppress(OSError):
                os.utime(self._own / name)

    def _delete(self, names: Sequence[str]) -> None:
        for name in names:
            self._remove(self._own / name, damaged=False)

    def _remove(self, path: Path, *, damaged: bool) -> None:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        self.counts.removed += not damaged
        self.counts.damaged += damaged
        if path.is_relative_to(self._own):
            self._note_gone(str(path.relative_to(self._own)))

    def _note_gone(self, name: str) -> None:
        with self._lock:
            self._gone.add(name)

    def _make_room(self, size: int) -> bool:
        """Remove what was used longest ago, of whichever model, until there is room; False if there cannot be any."""
        files = sorted(_files(self._folder), key=lambda file: file[0])
        total = sum(nbytes for _, nbytes, _ in files)
        allowed = min(self._bytes_max, total + self._free_bytes(self._folder) - FREE_KEPT_BYTES)
        if size > allowed:
            return False
        count = len(files)
        for _, nbytes, path in files:
            if total + size <= allowed and count < FILES_MAX:
                break
            self._remove(path, damaged=False)
            total, count = total - nbytes, count - 1
        return True

    def _piece(self, path: Path, header: Header, tokens: bytes) -> StoredPiece:
        start, stop = int(header.metadata["start"]), len(tokens) // TOKEN_BYTES
        if not 0 <= start <= stop:
            raise DamagedFile("it ends before it begins")
        return StoredPiece(
            name=str(path.relative_to(self._own)),
            start=start,
            stop=stop,
            has_snapshot=header.metadata["snapshot"] == "yes",
            size_bytes=path.stat().st_size,
            conversation=header.metadata["conversation"] or None,
        )


def forget_files(folder: Path, scope: str, conversation: str | None) -> int:
    """Remove what belongs to a conversation, or with None to a whole scope, of all models; whether they run or not.

    Returns:
        How many files were removed.
    """
    removed = 0
    for path in folder.glob(f"*/{scope}/*"):
        try:
            mine = conversation is None or read_header(path)[0].metadata.get("conversation") == conversation
        except FileNotFoundError:
            continue
        except (DamagedFile, OSError):
            mine = True  # what cannot be read is of no use, and might hold any of it
        if mine:
            path.unlink(missing_ok=True)
            removed += 1
    return removed


def _files(folder: Path) -> Iterator[tuple[float, int, Path]]:
    """When each file was used last, its size in bytes, and where it is; what is being written included."""
    for path in folder.glob("*/*/*"):
        with contextlib.suppress(OSError):
            stat = path.stat()
            yield stat.st_mtime, stat.st_size, path
