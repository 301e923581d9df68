"""The server's secret, from which the keys are derived that digest API keys and sign service tokens.

Nodes of one fleet share it: an API key that one of them made is known to all that have the same file.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path

SECRET_BYTES = 32
FILE_BYTES_MAX = 4096
FILE_NAME = "access.key"


class AccessSecretUnusable(Exception):
    """The file of the secret cannot be used; the message says why and what to do."""


class AccessSecret:
    """A secret with purposes: each has a key of its own, from which the others cannot be told."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def __repr__(self) -> str:
        return f"AccessSecret({self.secret_id})"

    @classmethod
    def of_folder(cls, folder: Path) -> AccessSecret:
        """With the secret of ``access.key`` in ``folder``, which is made if it is missing: readable by its owner only.

        Raises:
            AccessSecretUnusable: it can neither be read nor made, is too short, or others may read it.
        """
        file = folder / FILE_NAME
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with suppress(FileExistsError):
                _make(file)
            return cls(_read(file))
        except OSError as error:
            raise AccessSecretUnusable(f"the secret {file} cannot be used: {error.strerror}") from error

    @property
    def secret_id(self) -> str:
        """A name of the secret that tells nothing of it."""
        return self.derived("name").hex()[:16]

    def derived(self, purpose: str) -> bytes:
        """The 32 bytes for a purpose (RFC 5869's expand with one block: the secret is uniformly random)."""
        return hmac.digest(self._secret, b"manent " + purpose.encode() + b"\x01", hashlib.sha256)


def _make(file: Path) -> None:
    """Write a new secret durably; FileExistsError where there is one, however many processes start at once."""
    if file.exists():
        raise FileExistsError
    temporary = file.with_name(f".{file.name}-{os.getpid()}-{secrets.token_hex(4)}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "wb") as new:
            new.write(secrets.token_bytes(SECRET_BYTES))
            new.flush()
            os.fsync(new.fileno())
        file.hardlink_to(temporary)  # unlike a rename, it never replaces one that another process made meanwhile
    finally:
        temporary.unlink(missing_ok=True)


def _read(file: Path) -> bytes:
    with file.open("rb") as opened:
        mode = os.fstat(opened.fileno()).st_mode
        if stat.S_IMODE(mode) & 0o077:
            raise AccessSecretUnusable(f"{file} can be read by others; run `chmod 600 {file}`")
        secret = opened.read(FILE_BYTES_MAX)
    if len(secret) < SECRET_BYTES:
        raise AccessSecretUnusable(
            f"{file} has {len(secret)} bytes, not at least {SECRET_BYTES}; restore it from a backup (without it, no "
            "API key that was made under it holds)"
        )
    return secret
