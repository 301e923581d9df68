"""Webhooks' secrets, each derived from one key in the home: nothing that is stored or logged has to be kept secret."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from pathlib import Path

from manent.domain.errors import DomainError

KEY_FILE = "webhooks.key"
KEY_BYTES = 32
_KEY_ID_DIGITS = 16


class WebhookKeyUnusable(DomainError):
    """The key of the webhooks' secrets cannot be read or made."""

    code = "webhook_key_unusable"


class FileWebhookSecrets:
    """Implements ``WebhookSecrets`` with a key of 32 bytes in a file, which is made when it is first needed."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / KEY_FILE
        self._key: bytes | None = None

    @property
    def key_id(self) -> str:
        """See ``WebhookSecrets.key_id``: digits of a digest under the key, which tell nothing of it."""
        return self._derived("key id").hex()[:_KEY_ID_DIGITS]

    def secret(self, tenant: str, webhook_id: str, salt: str) -> bytes:
        """See ``WebhookSecrets.secret``."""
        return self._derived("secret", tenant, webhook_id, salt)

    def _derived(self, *names: str) -> bytes:
        if self._key is None:
            self._key = _read_or_make(self._file)
        message = b"".join(len(name.encode()).to_bytes(4, "big") + name.encode() for name in names)
        return hmac.digest(self._key, message, hashlib.sha256)


def _read_or_make(file: Path) -> bytes:
    try:
        if not file.exists():
            _make(file)
        key = file.read_bytes()
        if file.stat().st_mode & 0o077:
            raise WebhookKeyUnusable(f"{file} can be read by others; run `chmod 600 {file}`")
    except OSError as error:
        raise WebhookKeyUnusable(f"the key {file} cannot be used: {error.strerror}") from error
    if len(key) != KEY_BYTES:
        raise WebhookKeyUnusable(f"{file} has {len(key)} bytes, not {KEY_BYTES}; restore it from a backup")
    return key


def _make(file: Path) -> None:
    """Whole or not at all, and never over one that another process made meanwhile."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    made = file.with_name(f".{file.name}-{os.getpid()}")
    try:
        made.touch(mode=0o600)
        made.write_bytes(secrets.token_bytes(KEY_BYTES))
        os.link(made, file)
    except FileExistsError:
        pass
    finally:
        made.unlink(missing_ok=True)
