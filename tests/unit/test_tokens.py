"""Signed tokens judged: of an identity provider by secret or key set, and of nodes; and every known way around it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from manent.adapters.auth.claims import ClaimNames, Judged, verified_claims
from manent.adapters.auth.jwks import BYTES_MAX, KeySet, KeySetUnusable, read_file, read_url
from manent.adapters.auth.secret_file import AccessSecret, AccessSecretUnusable
from manent.adapters.auth.tokens import NODE_TYPE, JwtVerifier, NodeTokens, SharedSecret
from manent.app.system import SystemClock
from manent.domain.access import LOCAL_OPERATOR, Principal, Scope
from manent.domain.access_errors import InvalidCredential
from manent.domain.credentials import TokenVerifier
from tests.support.fakes import FakeClock

SECRET = "a shared secret of more than 32 bytes, for tests"  # noqa: S105 (of no server)
ISSUER, AUDIENCE = "https://issuer.example", "manent"
Changes = Mapping[str, Any]


@cache
def private_key(algorithm: str) -> Any:
    """One key of each kind: RSA's takes a while to make."""
    if algorithm == "RS256":
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return ec.generate_private_key(ec.SECP256R1()) if algorithm == "ES256" else ed25519.Ed25519PrivateKey.generate()


@cache
def weak_key() -> rsa.RSAPrivateKey:
    """An RSA key that is too short."""
    return rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505 (to be refused)


@cache
def rsa_of_others() -> rsa.RSAPrivateKey:
    """Another's key."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def jwk(key: Any, algorithm: str, kid: str = "k1") -> dict[str, Any]:
    """The public half, as key sets have it."""
    made: dict[str, Any] = jwt.get_algorithm_by_name(algorithm).to_jwk(key.public_key(), as_dict=True)
    return {**made, "kid": kid, "use": "sig"}


def claims(**changes: Any) -> dict[str, Any]:
    """Claims that hold, but for ``changes``; None takes a claim away."""
    now_s = int(time.time())
    held = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "exp": now_s + 600,
        "iat": now_s,
        "sub": "shop",
        "tenant": "acme",
        "scope": "chat audit unheard-of",
    }
    return {name: value for name, value in {**held, **changes}.items() if value is not None}


def judged(algorithm: str) -> Judged:
    """How tokens are judged here."""
    return Judged(algorithm=algorithm, issuer=ISSUER, audience=AUDIENCE, leeway_s=5.0)


def by_secret() -> JwtVerifier:
    """HS256."""
    return JwtVerifier(SharedSecret(SECRET.encode()), judged("HS256"), ClaimNames())


class Issuer:
    """A key set that counts how often it is read, and may change."""

    def __init__(self, *keys: dict[str, Any]) -> None:
        self.keys = list(keys)
        self.reads = 0

    async def read(self) -> bytes:
        """The key set now."""
        self.reads += 1
        return json.dumps({"keys": self.keys}).encode()


def by_keys(algorithm: str, issuer: Issuer | None = None, **bounds: float) -> JwtVerifier:
    """RS256, ES256 or EdDSA."""
    issuer = issuer or Issuer(jwk(private_key(algorithm), algorithm))
    return JwtVerifier(KeySet(issuer.read, algorithm=algorithm, **bounds), judged(algorithm), ClaimNames())


def signed(algorithm: str, key: Any = None, header: Changes | None = None, **changes: Any) -> str:
    """A token."""
    key = key or (SECRET if algorithm == "HS256" else private_key(algorithm))
    named = {name: value for name, value in {"kid": "k1", **(header or {})}.items() if value is not None}
    return jwt.encode(claims(**changes), key, algorithm=algorithm, headers=named)


async def refusal(verifier: TokenVerifier, token: str) -> str:
    """Why a token does not hold."""
    with pytest.raises(InvalidCredential) as raised:
        await verifier.verify(token)
    assert token not in raised.value.message
    return raised.value.message


@pytest.mark.parametrize("algorithm", ["HS256", "RS256", "ES256", "EdDSA"])
async def test_a_token_tells_who_comes(algorithm: str) -> None:
    """Its claims are tenant, subject and the scopes that are known."""
    verifier = by_secret() if algorithm == "HS256" else by_keys(algorithm)
    who = await verifier.verify(signed(algorithm))
    assert who == Principal(tenant="acme", subject="shop", scopes=frozenset({Scope.CHAT, Scope.AUDIT}))
    listed = await verifier.verify(signed(algorithm, scope=["sessions"]))
    assert listed.scopes == {Scope.SESSIONS}
    assert (await verifier.verify(signed(algorithm, scope=7))).scopes == frozenset()


def part(value: object) -> str:
    """A part of a token."""
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def unsigned() -> str:
    """alg=none (RFC 8725, 2.1)."""
    return f"{part({'alg': 'none', 'typ': 'JWT', 'kid': 'k1'})}.{part(claims())}."


def confused() -> str:
    """Signed with HS256 and the public key as the secret (RFC 8725, 2.1)."""
    public = private_key("RS256").public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    content = f"{part({'alg': 'HS256', 'kid': 'k1'})}.{part(claims())}"
    signature = hmac.digest(public, content.encode(), hashlib.sha256)
    return f"{content}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


def deep() -> str:
    """A payload that is nested as deep as fits, and signed."""
    return jwt.PyJWS().encode(b"[" * 5000, private_key("RS256"), algorithm="RS256", headers={"kid": "k1"})


ATTACKS: Mapping[str, tuple[Callable[[], str], str]] = {
    "alg none": (unsigned, "signed with RS256"),
    "key confusion": (confused, "signed with RS256"),
    "another algorithm": (lambda: signed("ES256"), "signed with RS256"),
    "expired": (lambda: signed("RS256", exp=int(time.time()) - 6), "has expired"),
    "far from expired, as text": (lambda: signed("RS256", exp="tomorrow"), "does not hold"),
    "without an end": (lambda: signed("RS256", exp=None), "lacks a claim"),
    "not yet": (lambda: signed("RS256", nbf=int(time.time()) + 100), "not hold yet"),
    "issued later": (lambda: signed("RS256", iat=int(time.time()) + 100), "not hold yet"),
    "another audience": (lambda: signed("RS256", aud="other"), "another audience"),
    "no audience": (lambda: signed("RS256", aud=None), "lacks a claim"),
    "another issuer": (lambda: signed("RS256", iss="https://evil.example"), "another issuer"),
    "no issuer": (lambda: signed("RS256", iss=None), "lacks a claim"),
    "another key": (lambda: signed("RS256", key=rsa_of_others()), "signature is wrong"),
    "no kid": (lambda: signed("RS256", header={"kid": None}), "names no key"),
    "an unknown kid": (lambda: signed("RS256", header={"kid": "../../etc/passwd"}), "does not have"),
    "a long kid": (lambda: signed("RS256", header={"kid": "k" * 300}), "names no key"),
    "its own key": (
        lambda: signed("RS256", key=rsa_of_others(), header={"jwk": jwk(rsa_of_others(), "RS256"), "jku": "x"}),
        "signature is wrong",
    ),
    "a critical extension": (lambda: signed("RS256", header={"crit": ["exp2"], "exp2": 1}), "cannot be read"),
    "huge": (lambda: signed("RS256", pad="x" * 9000), "8192"),
    "deep": (deep, "does not hold"),
    "a changed payload": (lambda: _changed(signed("RS256")), "signature is wrong"),
    "no payload": (lambda: "..", "cannot be read"),
    "no token": (lambda: "a.b.c", "cannot be read"),
    "no tenant": (lambda: signed("RS256", tenant=None), "'tenant'"),
    "a tenant in a list": (lambda: signed("RS256", tenant=["acme"]), "does not hold|'tenant'"),
    "no subject": (lambda: signed("RS256", sub=None), "'sub'"),
    "the system's subject": (lambda: signed("RS256", sub="manent"), "'sub'"),
    "a forged log line": (lambda: signed("RS256", sub="ann\nlogin"), "'sub'"),
}


def _changed(token: str) -> str:
    header, _, signature = token.split(".")
    return f"{header}.{part(claims(sub='boss'))}.{signature}"


@pytest.mark.parametrize("attack", ATTACKS)
async def test_no_attack_gets_in(attack: str) -> None:
    """Each is refused, for the reason that it should be refused for."""
    make, why = ATTACKS[attack]
    assert re.search(why, await refusal(by_keys("RS256"), make()))


async def test_no_algorithm_but_the_one_is_judged_by() -> None:
    """Also where the header was not looked at first, and for nodes: the secret's own algorithm will not do."""
    with pytest.raises(InvalidCredential, match="another algorithm"):
        verified_claims(signed("HS256"), SECRET, judged("ES256"))
    node = {"iss": "manent", "aud": "manent-node", "exp": int(time.time()) + 30}
    forged = f"{part({'alg': 'none', 'typ': NODE_TYPE})}.{part(claims(**node))}."
    assert await refusal(NodeTokens(AccessSecret(b"s" * 32), SystemClock()), forged)


async def test_short_keys_judge_nothing() -> None:
    """A set whose only key is too short lets nobody in."""
    issuer = Issuer(jwk(weak_key(), "RS256"))
    with pytest.warns(match="below"):
        token = signed("RS256", key=weak_key())
    assert await refusal(by_keys("RS256", issuer), token)


async def test_unknown_keys_are_looked_for_at_a_bounded_rate() -> None:
    """Who invents names of keys has the issuer asked once, also many at once; then known keys hold on."""
    issuer = Issuer(jwk(private_key("ES256"), "ES256"))
    verifier = by_keys("ES256", issuer)
    forged = [signed("ES256", header={"kid": f"k{number}"}) for number in range(2, 32)]
    await asyncio.gather(*(refusal(verifier, token) for token in forged))
    await verifier.verify(signed("ES256"))
    assert issuer.reads == 1


async def test_keys_rotate_with_their_issuer() -> None:
    """A new key is found when a token names it, and one that was taken away holds no more."""
    old, new = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = Issuer(jwk(old, "ES256", "old"))
    verifier = by_keys("ES256", issuer, again_s=-1.0)
    await verifier.verify(signed("ES256", key=old, header={"kid": "old"}))
    issuer.keys = [jwk(new, "ES256", "new")]
    await verifier.verify(signed("ES256", key=new, header={"kid": "new"}))
    assert "does not have" in await refusal(verifier, signed("ES256", key=old, header={"kid": "old"}))


async def test_what_was_read_last_holds_while_the_issuer_is_away() -> None:
    """Its outage is not ours."""
    issuer = Issuer(jwk(private_key("ES256"), "ES256"))
    verifier = by_keys("ES256", issuer, fresh_s=-1.0)
    await verifier.verify(signed("ES256"))
    issuer.keys = []
    await verifier.verify(signed("ES256"))
    assert issuer.reads == 2


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b'{"keys": 7}', b"[" * 100_000, b" " * (BYTES_MAX + 1), b'{"keys": [{"kty": "RSA", "kid": "k1"}]}'],
)
async def test_a_wrong_key_set_is_refused(content: bytes, tmp_path: Path) -> None:
    """Nothing, something else, too much or too deep, or keys that are none."""
    file = tmp_path / "jwks.json"
    file.write_bytes(content)
    with pytest.raises(KeySetUnusable):
        await KeySet(read_file(file), algorithm="RS256").load()


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"HTTP/1.1 302 Found\r\nlocation: /other\r\ncontent-length: 0\r\n\r\n", "302"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b" " * (2 * BYTES_MAX), "bytes"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n", "does not answer"),
        (b"nonsense\r\n\r\n", "does not answer"),
    ],
)
async def test_an_address_is_read_within_bounds(answer: bytes, why: str) -> None:
    """No redirect is followed, no endless body read, no slow one waited for."""

    hangs = answer.endswith(b"9\r\n\r\n")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        if not hangs:
            writer.write_eof()
        with suppress(ConnectionError):
            await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/jwks"
    async with server:
        with pytest.raises(KeySetUnusable, match=why):
            await KeySet(read_url(address, timeout_s=0.3 if hangs else 5.0), algorithm="RS256").load()


async def test_a_nodes_token_holds_a_minute() -> None:
    """It tells who sends it, between those that share the secret."""
    secret = AccessSecret(b"s" * 32)
    tokens = NodeTokens(secret, SystemClock())
    token = tokens.issue(LOCAL_OPERATOR)
    who = await tokens.verify(token)
    assert (who.tenant, who.subject, who.scopes) == ("default", "local", frozenset(Scope))
    assert await refusal(NodeTokens(AccessSecret(b"t" * 32), SystemClock()), token)
    old = NodeTokens(secret, FakeClock(int((time.time() - 71) * 1_000_000))).issue(LOCAL_OPERATOR)
    assert await refusal(tokens, old) == "the token has expired"


async def test_a_nodes_token_is_none_of_the_identity_providers() -> None:
    """Nor the other way round, even with the same secret: they differ in type, issuer and audience."""
    secret = AccessSecret(b"s" * 32)
    tokens = NodeTokens(secret, SystemClock())
    same = JwtVerifier(SharedSecret(secret.derived("node tokens")), judged("HS256"), ClaimNames())
    assert tokens.is_for(tokens.issue(LOCAL_OPERATOR))
    assert not same.is_for(tokens.issue(LOCAL_OPERATOR))
    assert await refusal(same, tokens.issue(LOCAL_OPERATOR))
    forged = jwt.encode(claims(), secret.derived("node tokens"), algorithm="HS256", headers={"typ": NODE_TYPE})
    assert await refusal(tokens, forged)
    long = claims(iss="manent", aud="manent-node", exp=int(time.time()) + 3600)
    lasting = jwt.encode(long, secret.derived("node tokens"), algorithm="HS256", headers={"typ": NODE_TYPE})
    assert "60 s" in await refusal(tokens, lasting)


def test_the_secret_is_its_owners(tmp_path: Path) -> None:
    """It is made once, for its owner's eyes; one that others read, or that was cut, is refused by name."""
    made = AccessSecret.of_folder(tmp_path / "keys")
    file = tmp_path / "keys" / "access.key"
    assert file.stat().st_mode & 0o777 == 0o600
    assert AccessSecret.of_folder(tmp_path / "keys").derived("x") == made.derived("x") != made.derived("y")
    assert file.read_bytes().hex() not in repr(made)
    file.chmod(0o640)
    with pytest.raises(AccessSecretUnusable, match="chmod 600"):
        AccessSecret.of_folder(tmp_path / "keys")
    file.chmod(0o600)
    file.write_bytes(b"short")
    with pytest.raises(AccessSecretUnusable, match="32"):
        AccessSecret.of_folder(tmp_path / "keys")
