"""Identity put together: the secret in the home, the keys in the log, the tokens taken, and who may listen."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from manent.adapters.auth.claims import ClaimNames, Judged
from manent.adapters.auth.jwks import KeySet, KeySetUnusable, read_file, read_url
from manent.adapters.auth.key_secrets import HmacKeySecrets
from manent.adapters.auth.secret_file import AccessSecret
from manent.adapters.auth.tokens import JwtVerifier, Keys, NodeTokens, SharedSecret
from manent.app.settings import Settings
from manent.domain.access_keys import KeyStatus
from manent.domain.ports import Clock, EventStore, Ids
from manent.domain.usecases.identify import Anonymous, Identify
from manent.domain.usecases.key_table import KeyTable
from manent.domain.usecases.manage_keys import ManageKeys
from manent.domain.usecases.record_logins import RecordFailedLogins

_log = logging.getLogger("manent.access")


class NotOpenable(Exception):
    """The server must not listen where it was told to; the message says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who may come, and what administrators change about it."""

    identify: Identify
    keys: ManageKeys
    table: KeyTable
    secrets: HmacKeySecrets
    takes_tokens: bool
    failures: RecordFailedLogins


async def identity(settings: Settings, store: EventStore, *, clock: Clock, ids: Ids) -> Identity:
    """The identity that the settings choose.

    Raises:
        AccessSecretUnusable: the secret in the home can neither be read nor made.
        NotOpenable: the key set of the settings is a file that cannot be used.
    """
    secret = AccessSecret.of_folder(settings.keys_folder)
    secrets, table = HmacKeySecrets(secret), KeyTable(store)
    tokens = await _tokens(settings)
    failures = RecordFailedLogins(store=store, clock=clock, ids=ids)
    return Identity(
        identify=Identify(
            keys=table,
            secrets=secrets,
            clock=clock,
            nodes=NodeTokens(secret, clock),
            tokens=tokens,
            anonymous=Anonymous(settings.anonymous),
            failures=failures,
        ),
        keys=ManageKeys(store=store, table=table, secrets=secrets, clock=clock, ids=ids),
        table=table,
        secrets=secrets,
        takes_tokens=tokens is not None,
        failures=failures,
    )


async def check_opening(settings: Settings, identity: Identity, *, now_us: int) -> str:
    """Whether the server may listen where it is told to; a sentence about who may come, for its operator.

    Raises:
        NotOpenable: others than this machine's programs could reach it, and nobody could prove who asks.
        StoreUnavailable: the keys cannot be read.
    """
    holding = [key for key in await identity.table.all() if key.status(now_us) is KeyStatus.ACTIVE]
    known = [key for key in holding if key.secrets[0].kept.secret_id == identity.secrets.secret_id]
    if len(known) < len(holding):
        _log.warning(
            "%d of %d API keys were made under another secret than %s and do not hold here; nodes of one fleet need "
            "the same file",
            len(holding) - len(known),
            len(holding),
            settings.keys_folder / "access.key",
        )
    if not settings.is_loopback:
        if settings.anonymous == "local":
            raise NotOpenable("MANENT_ANONYMOUS=local is for a server on loopback; leave it away, or set MANENT_HOST")
        if not known and not identity.takes_tokens:
            raise NotOpenable(
                f"on {settings.host} others could reach Manent, and there is no API key yet with which they would say "
                "who they are; make one with `manent keys create NAME --subject SUBJECT`, set MANENT_JWT_ALGORITHM and "
                "its companions, or listen on 127.0.0.1"
            )
    if await identity.identify.open_to_all():
        return (
            "There are no API keys yet, so everybody on this machine is its operator; `manent keys create` makes one."
        )
    if settings.anonymous == "local":
        return "Who presents nothing on this machine is its operator (MANENT_ANONYMOUS=local)."
    keys = f"API keys that hold: {len(known)}"
    return f"{keys}, and JWTs of {settings.jwt_issuer}." if identity.takes_tokens else f"{keys}."


async def _tokens(settings: Settings) -> JwtVerifier | None:
    algorithm = settings.jwt_algorithm
    if algorithm is None or settings.jwt_issuer is None or settings.jwt_audience is None:
        return None
    keys: Keys
    if settings.jwt_secret is not None:
        keys = SharedSecret(settings.jwt_secret.get_secret_value().encode())
    else:
        keys = await _key_set(settings.jwt_jwks or "", algorithm)
    judged = Judged(
        algorithm=algorithm,
        issuer=settings.jwt_issuer,
        audience=settings.jwt_audience,
        leeway_s=settings.jwt_leeway_s,
    )
    names = ClaimNames(
        tenant=settings.jwt_tenant_claim or None, subject=settings.jwt_subject_claim, scopes=settings.jwt_scopes_claim
    )
    return JwtVerifier(keys, judged, names)


async def _key_set(source: str, algorithm: str) -> KeySet:
    """The issuer's keys. A file must be there; an address that does not answer now is asked again later."""
    is_url = "://" in source
    keys = KeySet(read_url(source) if is_url else read_file(Path(source)), algorithm=algorithm)
    try:
        await keys.load()
    except KeySetUnusable as error:
        if not is_url:
            raise NotOpenable(f"MANENT_JWT_JWKS={source}: {error}") from error
        _log.warning("%s; it is asked again", error)
    return keys
