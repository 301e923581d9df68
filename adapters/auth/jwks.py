"""Key sets of identity providers (RFC 7517), from a file or an address: bounded, cached, and rotated with them."""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
from collections.abc import Awaitable, Callable, Mapping
from math import inf
from pathlib import Path
from typing import Any

import httpx
import jwt

from manent.domain.access_errors import InvalidCredential

BYTES_MAX = 256 * 1024
KEYS_MAX = 100
KID_CHARS_MAX = 256
FETCH_TIMEOUT_S = 5.0
FRESH_S = 600.0
AGAIN_S = 30.0
"""How long an unknown key is not looked for again: who invents names of keys cannot have them fetched."""

KINDS: Mapping[str, Mapping[str, str]] = {
    "RS256": {"kty": "RSA"},
    "ES256": {"kty": "EC", "crv": "P-256"},
    "EdDSA": {"kty": "OKP", "crv": "Ed25519"},
}

_NO_CERTIFICATES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

_log = logging.getLogger("manent.access")

Read = Callable[[], Awaitable[bytes]]
"""The bytes of a key set; raises OSError or ValueError where they cannot be had."""


class KeySetUnusable(Exception):
    """A key set has no key that signatures could be judged with; the message says why."""


class KeySet:
    """The public keys of an issuer by their names (``kid``). What was read last holds while it cannot be read again."""

    def __init__(self, read: Read, *, algorithm: str, fresh_s: float = FRESH_S, again_s: float = AGAIN_S) -> None:
        self._read = read
        self._algorithm = algorithm
        self._fresh_s = fresh_s
        self._again_s = again_s
        self._keys: Mapping[str, jwt.PyJWK] = {}
        self._tried_at_s = -inf
        self._lock = asyncio.Lock()

    async def key_of(self, header: Mapping[str, Any]) -> jwt.PyJWK:
        """The key that a token names.

        Raises:
            InvalidCredential: it names none, or one that the set has not.
        """
        kid = header.get("kid")
        if not isinstance(kid, str) or not 1 <= len(kid) <= KID_CHARS_MAX:
            raise InvalidCredential("the token names no key (kid)", known_as="token")
        known = self._keys.get(kid)
        if known is not None and self._lock.locked():  # nobody with a known key waits for another's
            return known
        async with self._lock:  # one reads, the others wait for what it finds
            age_s = asyncio.get_running_loop().time() - self._tried_at_s
            if age_s > self._fresh_s or (kid not in self._keys and age_s > self._again_s):
                await self._refresh()
        key = self._keys.get(kid)
        if key is None:
            raise InvalidCredential("the token is signed with a key that its issuer does not have", known_as="token")
        return key

    async def load(self) -> None:
        """Read the set for the first time.

        Raises:
            KeySetUnusable: it cannot be read, or has no key for the algorithm.
        """
        self._tried_at_s = asyncio.get_running_loop().time()
        try:
            self._keys = _usable_keys(await self._read(), self._algorithm)
        except (OSError, ValueError, RecursionError) as error:
            raise KeySetUnusable(f"the key set cannot be read: {error}") from error

    async def _refresh(self) -> None:
        try:
            await self.load()
        except KeySetUnusable as error:
            _log.warning("%s; the keys that were read before hold on", error)


def read_file(file: Path) -> Read:
    """Reads a key set from a file."""

    def bounded() -> bytes:
        with file.expanduser().open("rb") as opened:
            return opened.read(BYTES_MAX + 1)

    async def read() -> bytes:
        return await asyncio.to_thread(bounded)

    return read


def read_url(url: str, *, timeout_s: float = FETCH_TIMEOUT_S) -> Read:
    """Reads a key set from the address that the operator gave; redirects are not followed."""

    async def read() -> bytes:
        # The world's certificates take a while to read, which plain http on loopback need not wait for.
        secure = url.startswith("https:")
        trusted = await asyncio.to_thread(ssl.create_default_context) if secure else _NO_CERTIFICATES
        try:
            async with (
                asyncio.timeout(timeout_s),
                httpx.AsyncClient(verify=trusted, trust_env=False, follow_redirects=False, timeout=timeout_s) as client,
                client.stream("GET", url, headers={"accept": "application/json"}) as response,
            ):
                if response.status_code != httpx.codes.OK:
                    raise ValueError(f"{url} answered {response.status_code}")
                body = bytearray()
                async for piece in response.aiter_bytes():
                    body += piece
                    if len(body) > BYTES_MAX:
                        break
                return bytes(body)
        except (TimeoutError, httpx.HTTPError) as error:
            raise ValueError(f"{url} does not answer ({type(error).__name__})") from error

    return read


def _usable_keys(content: bytes, algorithm: str) -> dict[str, jwt.PyJWK]:
    """The keys of a set that may sign with ``algorithm``, by their names.

    Raises:
        ValueError: it is too large, no key set, or has none.
    """
    if len(content) > BYTES_MAX:
        raise ValueError(f"it has over {BYTES_MAX} bytes")
    document = json.loads(content)
    listed = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list) or len(listed) > KEYS_MAX:
        raise ValueError(f"it is no JSON object with at most {KEYS_MAX} keys in 'keys'")
    found: dict[str, jwt.PyJWK] = {}
    for entry in listed:
        if isinstance(entry, dict) and _fits(entry, algorithm):
            try:
                found[entry["kid"]] = jwt.PyJWK.from_dict(_public(entry), algorithm)
            except (jwt.PyJWTError, ValueError, TypeError, KeyError):
                _log.warning("a key of the key set cannot be used and is left out")
    if not found:
        raise ValueError(f"it has no key with a name (kid) for {algorithm}")
    return found


def _fits(entry: Mapping[str, Any], algorithm: str) -> bool:
    kid = entry.get("kid")
    named = isinstance(kid, str) and 1 <= len(kid) <= KID_CHARS_MAX
    right = all(entry.get(member) == value for member, value in KINDS[algorithm].items())
    return named and right and entry.get("use") in {None, "sig"} and entry.get("alg") in {None, algorithm}


def _public(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The entry without private members, should somebody have put them there."""
    return {name: value for name, value in entry.items() if name in {"kty", "crv", "kid", "n", "e", "x", "y"}}
