"""``manent doctor`` on what the log says of operations: who may come from elsewhere, and webhooks that fail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from manent.adapters.store.database import open_store
from manent.adapters.store.migrate import MigrationError, current_revision, latest_revision
from manent.adapters.webhooks.secrets import KEY_FILE, FileWebhookSecrets, WebhookKeyUnusable
from manent.app.findings import Finding, failure, ok, warning
from manent.app.settings import Settings
from manent.app.system import RandomIds, SystemClock
from manent.app.webhooks import WebhookCases, webhook_cases
from manent.domain.access import LOCAL_OPERATOR, Principal
from manent.domain.access_keys import KeyStatus
from manent.domain.errors import DomainError
from manent.domain.ports import EventStore
from manent.domain.usecases.dead_letters import LIMIT_MAX
from manent.domain.usecases.key_table import KeyTable
from manent.domain.webhooks import SUBSCRIPTIONS, Webhook

NAMED_MAX = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class _Trouble:
    """What is wrong with a webhook, and what to do."""

    webhook_id: str
    detail: str
    advice: str


def examine_records(settings: Settings) -> Sequence[Finding]:
    """The checks of this file, in order; none where the check of the database tells what is wrong."""
    try:
        if current_revision(settings.database) != latest_revision():
            return [_opening(settings, 0)] if current_revision(settings.database) is None else []
        return asyncio.run(_examined(settings))
    except (MigrationError, DomainError):
        return []


async def _examined(settings: Settings) -> Sequence[Finding]:
    async with _opened(settings) as (store, cases):
        now_us = SystemClock().now_us()
        keys = [key for key in await KeyTable(store).all() if key.status(now_us) is KeyStatus.ACTIVE]
        return [_opening(settings, len(keys)), await _webhooks(settings, cases)]


@asynccontextmanager
async def _opened(settings: Settings) -> AsyncGenerator[tuple[EventStore, WebhookCases], None]:
    clock = SystemClock()
    store = open_store(settings.database, clock=clock, ids=RandomIds())
    try:
        async with webhook_cases(settings, store, clock) as cases:
            yield store, cases
    finally:
        await store.aclose()


def _opening(settings: Settings, keys: int) -> Finding:
    """Whether a server may listen where the settings say: it would not start."""
    takes_tokens = settings.jwt_algorithm is not None
    who = f"{keys or 'no'} API keys hold" + (f", and JWTs of {settings.jwt_issuer}" if takes_tokens else "")
    if settings.is_loopback:
        return ok("access", f"programs of this machine alone; {who}")
    if settings.anonymous == "local":
        return failure("access", f"MANENT_ANONYMOUS=local on {settings.host}", "it is for loopback: leave it away")
    if not keys and not takes_tokens:
        return failure(
            "access",
            f"others reach {settings.host}, and there is neither an API key nor a JWT to tell who they are",
            "run `manent keys create NAME --subject SUBJECT`, or set MANENT_JWT_ALGORITHM and its companions",
        )
    return ok("access", f"others reach {settings.host}; {who}")


async def _webhooks(settings: Settings, cases: WebhookCases) -> Finding:
    """Of all tenants: those that are disabled, have dead letters, or cannot be signed for."""
    tenants = sorted({name.split("/", 2)[2] for name in await cases.subscriptions.names(SUBSCRIPTIONS)})
    webhooks = [webhook for tenant in tenants for webhook in await cases.manage.list_all(_operator_of(tenant))]
    if not webhooks:
        return ok("webhooks", "there are none")
    try:
        key_id = FileWebhookSecrets(settings.keys_folder).key_id if (settings.keys_folder / KEY_FILE).exists() else ""
    except WebhookKeyUnusable as error:
        return failure("webhooks", error.message, "restore the keys folder from its copy, or rotate their secrets")
    found = [trouble for webhook in webhooks if (trouble := await _trouble(webhook, cases, key_id)) is not None]
    if not found:
        return ok("webhooks", f"{len(webhooks)}, and no dead letters")
    named = "; ".join(f"{trouble.webhook_id} {trouble.detail}" for trouble in found[:NAMED_MAX])
    more = f"; and {len(found) - NAMED_MAX} more" if len(found) > NAMED_MAX else ""
    return warning("webhooks", f"{named}{more}", "; ".join(dict.fromkeys(trouble.advice for trouble in found)))


async def _trouble(webhook: Webhook, cases: WebhookCases, key_id: str) -> _Trouble | None:
    name = webhook.webhook_id
    if webhook.secret_key_id != key_id:
        advice = f"put that {KEY_FILE} in the keys folder, or run `manent webhooks rotate ID`"
        return _Trouble(webhook_id=name, detail="has a secret that another key than this one's made", advice=advice)
    if not webhook.enabled and webhook.reason is not None:
        return _Trouble(
            webhook_id=name, detail=f"is disabled: {webhook.reason}", advice="run `manent webhooks enable ID`"
        )
    letters, more = await cases.letters.page(_operator_of(webhook.tenant), name, after=0, limit=LIMIT_MAX)
    if letters:
        detail = f"has {len(letters)}{' and more' if more else ''} dead letters, the last: {letters[-1].reason}"
        return _Trouble(webhook_id=name, detail=detail, advice="run `manent webhooks dead-letters ID`")
    return None


def _operator_of(tenant: str) -> Principal:
    return replace(LOCAL_OPERATOR, tenant=tenant)
