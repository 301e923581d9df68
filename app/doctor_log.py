"""``manent doctor`` on what must not be lost: keys, the log's head against what was signed, the clock, Redis."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from manent.adapters.merkle.signer import KEY_FILE, FileSigner, KeyUnusable
from manent.adapters.projections.redis_link import RedisLimits, RedisLink
from manent.adapters.store.migrate import MigrationError, current_revision
from manent.adapters.store.open_rows import open_rows
from manent.adapters.store.rows import RowError
from manent.app.findings import Finding, failure, ok, warning
from manent.app.settings import Settings
from manent.domain.errors import DomainError
from manent.domain.projections import CacheUnavailable
from manent.domain.transparency import TreeHead
from manent.domain.usecases.issue_checkpoint import refusal

REDIS_S = 2.0
CLOCK_BACK_US = 1_000_000
BEFORE_MANENT = datetime(2025, 1, 1, tzinfo=UTC).timestamp()

Head = tuple[str, int, int, bytes]
"""Identity, position, time of the last event in microseconds, root."""


def examine_log(settings: Settings) -> Iterator[Finding]:
    """The checks of this file, in order."""
    yield _keys(settings)
    head = _head(settings)
    if head is not None:
        yield _signed(settings, head)
    yield _clock(head)
    if settings.redis_url is not None:
        yield asyncio.run(_redis(settings.redis_url))


def _keys(settings: Settings) -> Finding:
    folder = settings.keys_folder
    try:
        files = [path for path in folder.iterdir() if path.is_file() and path.suffix != ".pub"]
        open_to_others = [path.name for path in files if path.stat().st_mode & 0o077 and not path.name.startswith(".")]
    except FileNotFoundError:
        return ok("keys", f"{folder} will be made by the first start")
    except OSError as error:
        return failure("keys", f"{folder} cannot be read: {error.strerror}", "give yourself the right to read it")
    if open_to_others:
        names = ", ".join(sorted(open_to_others))
        return failure("keys", f"others can read {names} in {folder}", f"run `chmod -R go= {folder}`")
    return ok("keys", f"{len(files)} in {folder}, for you alone; keep a copy apart from the backups")


def _head(settings: Settings) -> Head | None:
    """The log's head; None where there is none, or the check of the database tells why."""
    try:
        if current_revision(settings.database) is None:
            return None
        rows = asyncio.run(_head_rows(settings))
    except (MigrationError, DomainError, RowError):
        return None
    return None if not rows else (str(rows[0][0]), int(rows[0][1]), int(rows[0][2]), bytes(rows[0][3]))


async def _head_rows(settings: Settings) -> Sequence[Sequence[Any]]:
    rows = open_rows(settings.database)
    try:
        return await rows.fetch("SELECT log_id, position, recorded_at_us, root FROM log_head")
    finally:
        await rows.aclose()


def _signed(settings: Settings, head: Head) -> Finding:
    """The head against the memory of what was signed last; that each is a continuation `manent log verify` shows."""
    log_id, position, _, root = head
    if not (settings.keys_folder / KEY_FILE).exists():
        lost = " and its key is missing" if position else ""
        found = f"{position} events{lost}"
        advice = f"put the keys folder back at {settings.keys_folder}: the next start makes a new key otherwise"
        return warning("log", found, advice) if position else ok("log", "empty")
    try:
        last = asyncio.run(FileSigner(settings.keys_folder, log_id).last())
    except KeyUnusable as error:
        return failure("log", error.message, "restore the keys folder from its copy")
    now = TreeHead(size=position, root=root)
    if last is not None and (last.size > now.size or (last.size == now.size and last.root != now.root)):
        return failure("log", refusal(last, now), "run `manent log verify`, then restore the newest backup")
    return ok("log", f"{position} events, {0 if last is None else last.size} of them signed")


def _clock(head: Head | None) -> Finding:
    now_s = time.time()
    now = datetime.fromtimestamp(now_s, UTC).isoformat(timespec="seconds")
    if now_s < BEFORE_MANENT:
        return failure("clock", f"it says {now}", "set the machine's clock: events are recorded with its time")
    if head is not None and head[2] > now_s * 1_000_000 + CLOCK_BACK_US:
        last = datetime.fromtimestamp(head[2] / 1_000_000, UTC).isoformat(timespec="seconds")
        return warning(
            "clock",
            f"it says {now}, and the last event is of {last}",
            "check the clock; times in the log do not go back",
        )
    return ok("clock", now)


async def _redis(url: str) -> Finding:
    link = RedisLink(url, RedisLimits(timeout_s=REDIS_S))
    try:
        await link.one("PING")
    except CacheUnavailable as error:
        return warning(
            "redis", error.message, "check MANENT_REDIS_URL, and that it runs; contexts come from the log meanwhile"
        )
    finally:
        await link.aclose()
    return ok("redis", "it answers")
