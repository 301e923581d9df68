"""A backup as a file: a tar with a manifest first, which says how long each other member is and what its digest is.

Members are ``manifest.json``, ``manent.db`` (the log as a SQLite file, whatever database it came from), ``models.toml``
where there is one, and below ``keys/`` the keys, where they were asked for.
"""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import msgspec

FORMAT = "manent.backup/1"
MANIFEST = "manifest.json"
DATABASE = "manent.db"
REGISTRY = "models.toml"
MANIFEST_BYTES_MAX = 1_000_000
MEMBERS_MAX = 1000
PRIVATE_MODE = 0o600
_PIECE_BYTES = 1024 * 1024
_MEMBER = re.compile(r"manent\.db|models\.toml|keys/(?!\.)[A-Za-z0-9._-]{1,120}")


class BackupInvalid(Exception):
    """The file is no backup, or not what its manifest promises; the message says what is wrong."""


class Member(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file of a backup; ``sha256`` in hexadecimal digits."""

    bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What is in a backup: the log up to ``position`` with its ``root``, and the last signed checkpoint of it."""

    format: str
    created_at: str
    manent: str
    database: str
    log_id: str
    position: int
    root: str
    checkpoint: str | None
    verifier_key: str | None
    members: dict[str, Member]


def member_of(path: Path) -> Member:
    """The length and digest of a file.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return Member(bytes=path.stat().st_size, sha256=hashlib.file_digest(file, "sha256").hexdigest())


def write_backup(target: Path, manifest: Manifest, files: Mapping[str, Path]) -> None:
    """Write the tar; ``files`` are the members of the manifest, by name.

    Raises:
        OSError: it cannot be written.
    """
    content = msgspec.json.format(msgspec.json.encode(manifest), indent=1)
    with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(_info(MANIFEST, len(content)), io.BytesIO(content))
        for name, path in files.items():
            with path.open("rb") as file:
                tar.addfile(_info(name, manifest.members[name].bytes), file)


def read_manifest(source: Path) -> Manifest:
    """What a backup says it is.

    Raises:
        BackupInvalid: it cannot be read, or is none.
    """
    try:
        with tarfile.open(source, "r:") as tar:
            return _manifest(source, tar)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise BackupInvalid(f"{source} is no backup of Manent's: {error}") from error


def extract(source: Path, folder: Path) -> Manifest:
    """Write the members below ``folder``, each compared with the manifest on the way.

    Raises:
        BackupInvalid: it is no backup, is cut off, or a member is not what the manifest promises; OSError: the folder
            cannot be written.
    """
    try:
        with tarfile.open(source, "r:") as tar:
            manifest = _manifest(source, tar)
            for info in tar.getmembers()[1:]:
                if info.name not in manifest.members or not info.isfile():
                    raise BackupInvalid(f"{source} has a member {info.name!r:.200} that its manifest does not name")
                stream = tar.extractfile(info)
                if stream is not None:
                    _write(source, info.name, manifest.members[info.name], stream, folder)
    except (tarfile.TarError, EOFError) as error:
        raise BackupInvalid(f"{source} is damaged or cut off: {error}") from error
    missing = [name for name in manifest.members if not (folder / name).exists()]
    if missing:
        raise BackupInvalid(f"{source} is cut off: {', '.join(missing)} of its manifest is not there")
    return manifest


def _write(source: Path, name: str, promised: Member, stream: IO[bytes], folder: Path) -> None:
    target = folder / name
    target.parent.mkdir(mode=0o700, exist_ok=True)
    digest, size_bytes = hashlib.sha256(), 0
    with target.open("xb") as file:
        target.chmod(PRIVATE_MODE)
        while piece := stream.read(_PIECE_BYTES):
            digest.update(piece)
            size_bytes += len(piece)
            file.write(piece)
    if (size_bytes, digest.hexdigest()) != (promised.bytes, promised.sha256):
        raise BackupInvalid(f"{name} in {source} is not what its manifest promises: the backup was damaged or changed")


def _manifest(source: Path, tar: tarfile.TarFile) -> Manifest:
    first = tar.next()
    stream = None if first is None or first.name != MANIFEST else tar.extractfile(first)
    if stream is None:
        raise BackupInvalid(f"{source} is no backup of Manent's: it does not begin with {MANIFEST}")
    try:
        manifest = msgspec.json.decode(stream.read(MANIFEST_BYTES_MAX), type=Manifest)
    except msgspec.MsgspecError as error:
        raise BackupInvalid(f"the manifest of {source} is damaged: {error}") from error
    if manifest.format != FORMAT:
        raise BackupInvalid(f"{source} has the format {manifest.format!r:.80}; this Manent reads {FORMAT}")
    names = list(manifest.members)
    if DATABASE not in names or len(names) > MEMBERS_MAX or not all(map(_MEMBER.fullmatch, names)):
        raise BackupInvalid(f"the manifest of {source} names files that no backup has")
    return manifest


def _info(name: str, size_bytes: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size_bytes, PRIVATE_MODE
    return info
