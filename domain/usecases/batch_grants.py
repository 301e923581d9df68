"""In whose name the lines of a batch are answered: whoever made it, as long as what they came with holds."""

from __future__ import annotations

from manent.domain.access import Principal, Scope, check_entry
from manent.domain.access_errors import InvalidCredential
from manent.domain.access_keys import KeyStatus
from manent.domain.batches import BatchState
from manent.domain.ports import Clock
from manent.domain.usecases.key_table import KeyTable


class BatchGrants:
    """Looks the key of a batch up. Without ``keys``, and for what is no key, the rights are those of the beginning."""

    def __init__(self, clock: Clock, keys: KeyTable | None = None) -> None:
        self._clock = clock
        self._keys = keys

    async def principal(self, state: BatchState) -> Principal:
        """Who asks what the lines ask.

        Raises:
            InvalidCredential: the key was revoked, or has expired.
            PermissionDenied: it lost the scope that the lines need.
            StoreUnavailable: the keys cannot be read.
        """
        principal = state.principal
        if self._keys is not None and principal.credential_id is not None:
            key = await self._keys.of_id(principal.credential_id)
            if key is not None:
                status = key.status(self._clock.now_us())
                if status is not KeyStatus.ACTIVE:
                    raise InvalidCredential(f"the API key that made the batch is {status}", known_as=key.key_id)
                principal = key.principal
        check_entry(principal, Scope.CHAT, reads=False)
        return principal
