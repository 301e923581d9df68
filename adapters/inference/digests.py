"""Digests of model files, and the cache that makes them cheap: a hundred gigabytes are hashed once and not per load."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

import msgspec

_CHUNK_BYTES = 4 * 2**20


class _Entry(msgspec.Struct, frozen=True):
    """What is remembered of a file. The inode's change time cannot be set back, so a swapped file is noticed."""

    path: str
    size_bytes: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    sha256: str


class DigestCache:
    """SHA-256 of files, remembered in a folder by path, size and times; a cache that cannot be used is only slow."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def sha256(self, file: Path) -> str:
        """The digest of a file's content, in hex.

        Raises:
            OSError: the file cannot be read.
        """
        path = str(file.resolve())
        entry_file = self._folder / f"{hashlib.sha256(path.encode()).hexdigest()}.json"
        before = file.stat()
        known = _read_entry(entry_file)
        if known is not None and known == _entry(path, before, known.sha256):
            return known.sha256
        digest = _sha256_of_content(file)
        if _entry(path, file.stat(), digest) == (entry := _entry(path, before, digest)):
            _write_entry(entry_file, entry)
        return digest

    def digest_of_files(self, files: Iterable[Path]) -> str:
        """``sha256:<hex>`` over the names and contents of files, in the order of their names."""
        total = hashlib.sha256()
        for file in sorted(files, key=lambda file: file.name):
            total.update(f"{self.sha256(file)}  {file.name}\n".encode())
        return f"sha256:{total.hexdigest()}"


def digest_of_text(text: str) -> str:
    """``sha256:<hex>`` of a text in UTF-8."""
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def _entry(path: str, stat: os.stat_result, sha256: str) -> _Entry:
    return _Entry(
        path=path,
        size_bytes=stat.st_size,
        mtime_ns=stat.st_mtime_ns,
        ctime_ns=stat.st_ctime_ns,
        inode=stat.st_ino,
        sha256=sha256,
    )


def _sha256_of_content(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb", buffering=0) as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _read_entry(file: Path) -> _Entry | None:
    try:
        return msgspec.json.decode(file.read_bytes(), type=_Entry)
    except (OSError, msgspec.DecodeError):
        return None


def _write_entry(file: Path, entry: _Entry) -> None:
    """Written beside and renamed, so that a reader never sees half an entry."""
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=file.parent, prefix=".entry-")
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(msgspec.json.encode(entry))
        Path(temporary).replace(file)
