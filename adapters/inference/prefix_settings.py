"""What a server tells its runners about prefix caches: how much, where, and under which names. Knows no MLX."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from manent.adapters.inference.protocol import PrefixScope
from manent.domain.caching import CacheScope

_SECRET_BYTES = 32
_TAG_BYTES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefixOptions:
    """The prefix cache of one runner; ``model`` is the tag of its model. The bounds are as in ``PrefixSettings``."""

    folder: Path
    model: str
    memory_bytes: int
    disk_bytes: int

    @property
    def arguments(self) -> list[str]:
        """A part of the runner's command line."""
        return [
            f"--prefix-folder={self.folder}",
            f"--prefix-model={self.model}",
            f"--prefix-memory-bytes={self.memory_bytes}",
            f"--prefix-disk-bytes={self.disk_bytes}",
        ]


class PrefixTags:
    """Names for tenants, conversations and models that tell nothing to whoever has not the secret: keyed digests."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    @classmethod
    def of_file(cls, file: Path) -> PrefixTags:
        """With the secret of a file, which is made if it is missing: readable by its owner, and written at once.

        Raises:
            OSError: it can neither be read nor written.
        """
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not file.exists():
            temporary = file.with_name(f".{file.name}-{os.getpid()}")
            temporary.touch(mode=0o600)
            temporary.write_bytes(secrets.token_bytes(_SECRET_BYTES))
            temporary.replace(file)
        return cls(file.read_bytes())

    def scope(self, scope: CacheScope) -> PrefixScope:
        """A scope as a runner is told it."""
        conversation = None if scope.conversation is None else self.conversation(scope.tenant, scope.conversation)
        return PrefixScope(tenant=self.tenant(scope.tenant), conversation=conversation, durable=scope.durable)

    def tenant(self, tenant: str) -> str:
        """The tag of a tenant."""
        return self._tag("tenant", tenant)

    def conversation(self, tenant: str, conversation: str) -> str:
        """The tag of a tenant's conversation."""
        return self._tag("conversation", tenant, conversation)

    def model(self, model_id: str) -> str:
        """The tag of a model."""
        return self._tag("model", model_id)

    def _tag(self, *names: str) -> str:
        message = b"".join(len(name.encode()).to_bytes(4, "big") + name.encode() for name in names)
        return hmac.new(self._secret, message, hashlib.sha256).digest()[:_TAG_BYTES].hex()


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefixSettings:
    """The prefix caches of all runners: each keeps ``memory_bytes`` at most, all together ``disk_bytes`` on disk.

    0 turns the disk off; for memory it turns the whole cache off.
    """

    folder: Path
    memory_bytes: int
    disk_bytes: int
    tags: PrefixTags

    def options(self, model_id: str) -> PrefixOptions:
        """Those of a model's runner."""
        return PrefixOptions(
            folder=self.folder,
            model=self.tags.model(model_id),
            memory_bytes=self.memory_bytes,
            disk_bytes=self.disk_bytes,
        )
