"""From what a request presents to who asks: an API key, a signed token of others or of a node, or nothing at all."""

from __future__ import annotations

import asyncio
import logging
from enum import StrEnum

from manent.domain.access import LOCAL_OPERATOR, Principal
from manent.domain.access_errors import InvalidCredential
from manent.domain.access_keys import KeyStatus
from manent.domain.credentials import KEY_CHARS, KEY_PREFIX, TOKEN_CHARS_MAX, KeySecrets, TokenVerifier
from manent.domain.login_guard import LoginGuard
from manent.domain.ports import Clock
from manent.domain.usecases.key_table import KeyTable
from manent.domain.usecases.record_logins import RecordFailedLogins

HOW = "send it as 'Authorization: Bearer …' or 'X-API-Key'"

_log = logging.getLogger("manent.access")


class Anonymous(StrEnum):
    """Who presents nothing: nobody; the local operator; or that one only as long as no credential is configured."""

    NONE = "none"
    LOCAL = "local"
    AUTO = "auto"


class Identify:
    """Judges credentials. What does not hold is counted by address, and told apart in the log, never in a secret."""

    def __init__(
        self,
        *,
        keys: KeyTable,
        secrets: KeySecrets,
        clock: Clock,
        nodes: TokenVerifier,
        tokens: TokenVerifier | None = None,
        anonymous: Anonymous = Anonymous.AUTO,
        guard: LoginGuard | None = None,
        failures: RecordFailedLogins | None = None,
    ) -> None:
        self._keys = keys
        self._secrets = secrets
        self._clock = clock
        self._nodes = nodes
        self._tokens = tokens
        self._anonymous = anonymous
        self.guard = guard or LoginGuard()
        self._failures = failures

    async def open_to_all(self) -> bool:
        """Whether everybody is the local operator: nothing that could be presented was ever configured."""
        return self._anonymous is Anonymous.AUTO and self._tokens is None and not await self._keys.any()

    async def run(self, credential: str | None, *, address: str, request_id: str | None = None) -> Principal:
        """Who comes with ``credential`` from ``address``.

        Raises:
            InvalidCredential: nothing was presented, or what was does not hold.
            TooManyFailedLogins: it does not hold either, and the address has tried too often.
            StoreUnavailable: the database has not answered for so long that no key can be judged.
        """
        if await self.open_to_all():
            return LOCAL_OPERATOR
        if credential is None:
            if self._anonymous is Anonymous.LOCAL:
                return LOCAL_OPERATOR
            raise InvalidCredential(f"no API key was given; {HOW}", known_as="none")
        try:
            return await self._judge(credential)
        except InvalidCredential as error:
            self.count(error, address=address, request_id=request_id)
            raise

    def count(self, error: InvalidCredential, *, address: str, request_id: str | None) -> None:
        """Count and log a login that failed; it is recorded with others.

        Raises:
            TooManyFailedLogins: the address has failed too often.
        """
        if self._failures is not None:
            self._failures.note(error, address=address)
        self.guard.failed(address, now_s=asyncio.get_running_loop().time())
        _log.warning("login failed from %s: %s (%s), request %s", address, error.message, error.known_as, request_id)

    async def _judge(self, credential: str) -> Principal:
        if credential.startswith(KEY_PREFIX):
            return await self._of_key(credential)
        if len(credential) > TOKEN_CHARS_MAX:
            raise InvalidCredential(f"the token has over {TOKEN_CHARS_MAX} characters", known_as="token")
        if credential.count(".") == 2:  # noqa: PLR2004 (RFC 7515, 3.1: header, payload, signature)
            if self._nodes.is_for(credential):
                return await self._nodes.verify(credential)
            if self._tokens is not None:
                return await self._tokens.verify(credential)
            raise InvalidCredential(f"this server takes no JWTs; {HOW}: an API key begins with {KEY_PREFIX}")
        raise InvalidCredential(f"this is no API key of this server: one begins with {KEY_PREFIX}")

    async def _of_key(self, presented: str) -> Principal:
        # Whatever is presented takes the same way: its digest is made, looked up by, and compared.
        digest = self._secrets.digest(presented[: KEY_CHARS + 1])
        state = await self._keys.find(digest)
        now_us = self._clock.now_us()
        if state is None or not any(self._secrets.same(held.kept.digest, digest) for held in state.secrets):
            raise InvalidCredential("there is no such API key")
        match state.status(now_us):
            case KeyStatus.REVOKED:
                why = "the API key was revoked"
            case KeyStatus.EXPIRED:
                why = "the API key has expired"
            case _ if not state.holds(digest, now_us):
                why = "the API key was replaced by a rotation"
            case _:
                return state.principal
        raise InvalidCredential(why, known_as=state.key_id, tenant=state.grant.tenant)
