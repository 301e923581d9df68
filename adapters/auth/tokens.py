"""JSON Web Tokens of an identity provider, and the tokens of Manent's own nodes."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any, Protocol

import jwt

from manent.adapters.auth.claims import ClaimNames, Judged, principal_of, unverified_header, verified_claims
from manent.adapters.auth.secret_file import AccessSecret
from manent.domain.access import Principal
from manent.domain.access_errors import InvalidCredential
from manent.domain.ports import Clock

NODE_TYPE = "manent-node+jwt"
NODE_ISSUER = "manent"
NODE_AUDIENCE = "manent-node"
NODE_LIFETIME_S = 60
NODE_LEEWAY_S = 10.0
NODE_CLAIMS = ClaimNames()


class Keys(Protocol):
    """Where the keys come from that signatures are judged with."""

    async def key_of(self, header: Mapping[str, Any]) -> Any:
        """The key that a token's header names, as pyjwt takes it.

        Raises:
            InvalidCredential: there is none.
        """
        ...


class SharedSecret:
    """One secret, for every token."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    async def key_of(self, header: Mapping[str, Any]) -> bytes:
        """See ``Keys.key_of``."""
        del header
        return self._secret


class JwtVerifier:
    """Judges the tokens of an identity provider; see ``TokenVerifier``. The algorithm is the operator's choice."""

    def __init__(self, keys: Keys, judged: Judged, names: ClaimNames) -> None:
        self._keys = keys
        self._judged = judged
        self._names = names

    def is_for(self, token: str) -> bool:
        """See ``TokenVerifier.is_for``: any token that is no node's."""
        return unverified_header(token).get("typ") != NODE_TYPE

    async def verify(self, token: str) -> Principal:
        """See ``TokenVerifier.verify``."""
        header = unverified_header(token)
        if header.get("alg") != self._judged.algorithm:  # before any key is looked for
            raise InvalidCredential(f"this server takes tokens signed with {self._judged.algorithm}", known_as="token")
        claims = verified_claims(token, await self._keys.key_of(header), self._judged)
        return principal_of(claims, self._names)


class NodeTokens:
    """Tokens that nodes, and commands on their machines, make for each other: short-lived, signed by the shared secret.

    They have a type of their own (RFC 8725, 3.11), so that neither kind of token is ever taken for the other.
    """

    def __init__(self, secret: AccessSecret, clock: Clock) -> None:
        self._key = secret.derived("node tokens")
        self._clock = clock

    def issue(self, principal: Principal) -> str:
        """A token with which ``principal`` comes to another node, for a minute."""
        now_s = self._clock.now_us() // 1_000_000
        claims = {
            "iss": NODE_ISSUER,
            "aud": NODE_AUDIENCE,
            "iat": now_s,
            "exp": now_s + NODE_LIFETIME_S,
            "jti": secrets.token_hex(16),
            NODE_CLAIMS.subject: principal.subject,
            "tenant": principal.tenant,
            NODE_CLAIMS.scopes: " ".join(sorted(principal.scopes)),
        }
        return jwt.encode(claims, self._key, algorithm="HS256", headers={"typ": NODE_TYPE})

    def is_for(self, token: str) -> bool:
        """See ``TokenVerifier.is_for``."""
        return unverified_header(token).get("typ") == NODE_TYPE

    async def verify(self, token: str) -> Principal:
        """See ``TokenVerifier.verify``."""
        judged = Judged(algorithm="HS256", issuer=NODE_ISSUER, audience=NODE_AUDIENCE, leeway_s=NODE_LEEWAY_S)
        claims = verified_claims(token, self._key, judged)
        issued_s, expires_s = claims.get("iat"), claims["exp"]
        if not isinstance(issued_s, int) or not 0 <= expires_s - issued_s <= NODE_LIFETIME_S:
            raise InvalidCredential(f"a node's token holds {NODE_LIFETIME_S} s at most", known_as="node token")
        return principal_of(claims, NODE_CLAIMS, credential_id="node")
