"""The log's key, and the signer that remembers what it signed outside the database.

``log-signing.key`` is made at the first start; ``log-signing.pub`` beside it holds the verifier key, to be handed to
auditors. The last checkpoint of each log lies beside them as it was signed: whoever restores an old database does not
restore it, and is told.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from manent.adapters.merkle.checkpoints import checkpoint_text, open_checkpoint, origin_of
from manent.adapters.merkle.notes import Verifier, sign_note
from manent.domain.errors import DomainError
from manent.domain.merkle import verify_consistency
from manent.domain.transparency import CheckpointInvalid, CheckpointRefused, TreeHead
from manent.domain.usecases.issue_checkpoint import refusal

KEY_FILE = "log-signing.key"
VERIFIER_FILE = "log-signing.pub"
PRIVATE_MODE = 0o600
_LOG_ID = re.compile(r"[A-Za-z0-9_-]{1,80}")


class KeyUnusable(DomainError):
    """The signing key or its memory cannot be read or written."""

    code = "signing_key_unusable"


class FileSigner:
    """Implements ``CheckpointSigner`` with a key in ``folder``. Processes take turns by a lock on the folder."""

    def __init__(self, folder: Path, log_id: str) -> None:
        if not _LOG_ID.fullmatch(log_id):
            raise KeyUnusable(f"{log_id!r} is no identity of a log")
        self._folder = folder
        self._memory = folder / f"{log_id}.checkpoint"
        try:
            if not (folder / KEY_FILE).exists():
                with _locked(folder):
                    _create_if_missing(folder / KEY_FILE)
            self._key = _load(folder / KEY_FILE)
            self.verifier = Verifier(origin_of(log_id), self._key.public_key().public_bytes_raw())
            _write_if_new(folder / VERIFIER_FILE, f"{self.verifier}\n", mode=0o644)
        except OSError as error:
            raise KeyUnusable(f"the signing key in {folder} cannot be used: {error.strerror}") from error

    def opened(self, note: str) -> TreeHead:
        """See ``CheckpointVerifier.opened``."""
        return open_checkpoint(note, self.verifier)

    async def last(self) -> TreeHead | None:
        """See ``CheckpointSigner.last``."""
        return await asyncio.to_thread(self._remembered)

    async def sign(self, head: TreeHead, consistency: Sequence[bytes]) -> str:
        """See ``CheckpointSigner.sign``. Once signed, it is remembered, durably, before it is handed out."""
        return await asyncio.to_thread(self._sign, head, consistency)

    def _sign(self, head: TreeHead, consistency: Sequence[bytes]) -> str:
        try:
            with _locked(self._folder):
                last = self._remembered()
                if last is not None and not verify_consistency(last.size, head.size, consistency, last.root, head.root):
                    raise CheckpointRefused(refusal(last, head))
                note = sign_note(checkpoint_text(self.verifier.name, head), self.verifier.name, self._key)
                _write_if_new(self._memory, note, mode=PRIVATE_MODE)
                return note
        except OSError as error:
            raise KeyUnusable(f"what was signed cannot be remembered in {self._folder}: {error.strerror}") from error

    def _remembered(self) -> TreeHead | None:
        try:
            return self.opened(self._memory.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise KeyUnusable(f"{self._memory} cannot be read: {error.strerror}") from error
        except (CheckpointInvalid, ValueError) as error:
            raise KeyUnusable(f"{self._memory} is not what this key signed last: {error}; restore it") from error


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (folder / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _create_if_missing(path: Path) -> None:
    if not path.exists():
        pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        _write(path, pem, mode=PRIVATE_MODE)


def _load(path: Path) -> Ed25519PrivateKey:
    pem = path.read_bytes()
    if path.stat().st_mode & 0o077:
        raise KeyUnusable(f"{path} can be read by others; run `chmod 600 {path}`")
    try:
        key = load_pem_private_key(pem, password=None)
    except ValueError as error:
        raise KeyUnusable(f"{path} holds no private key; restore it from a backup") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyUnusable(f"{path} holds a key that is not Ed25519")
    return key


def _write_if_new(path: Path, text: str, *, mode: int) -> None:
    with suppress(FileNotFoundError):
        if path.read_bytes() == text.encode():
            return
    _write(path, text.encode(), mode=mode)


def _write(path: Path, content: bytes, *, mode: int) -> None:
    """Write all of it or nothing, durably: a new file is fsynced, moved into place, and its folder fsynced."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
