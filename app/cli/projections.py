"""``manent projections``: the contexts that servers share through Redis; seen, rebuilt from the log, and verified.

The tables that list sessions are rebuilt here, too.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from manent.adapters.projections.lru import LruContextCache
from manent.adapters.store.checkpoints import SQLCheckpoints
from manent.adapters.store.database import open_subscription_engine
from manent.adapters.store.open_rows import open_rows
from manent.adapters.store.session_rebuild import SessionIndexRebuilt, rebuild_session_index
from manent.adapters.store.session_walk import SQLSessionWalk
from manent.adapters.store.sql import SQLEventStore
from manent.app.cli.database import opened_store
from manent.app.cli.output import ExitCode, err, fail, literal, out, print_json, run, settings_or_fail
from manent.app.projections import Projections, shared_projections
from manent.app.settings import Settings
from manent.app.system import SystemClock
from manent.domain.projections import CacheUnavailable
from manent.domain.usecases.project_contexts import NAME
from manent.domain.usecases.rebuild_contexts import RebuildContexts, Rebuilt
from manent.domain.usecases.sessions import Sessions
from manent.domain.usecases.verify_contexts import ContextsVerified, VerifyContexts

MIB = 1024 * 1024

app = typer.Typer(help="Contexts that servers share through Redis: see, rebuild, verify.", no_args_is_help=True)
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def status(*, json: Json = False) -> None:
    """Show the epoch, how far the projector is behind the log, and how much is kept."""
    facts = run(_status(settings_or_fail()))
    if json:
        print_json({"object": "projections.status", **facts})
        return
    behind = "no server has projected yet" if not facts["checkpoint"] else f"{facts['lag']} events behind the log"
    out.print(f"epoch {facts['epoch']}")
    out.print(f"the projector is at position {facts['checkpoint']} of {facts['head']}: {behind}")
    out.print(f"{facts['sessions']} sessions in {int(facts['memory_bytes']) / MIB:.1f} MiB")


class Rebuildable(StrEnum):
    """What can be made again from the log."""

    CONTEXTS = "contexts"
    SESSIONS = "sessions"


@app.command()
def rebuild(
    what: Annotated[
        Rebuildable, typer.Argument(help="The contexts in Redis, or the tables of the database that list sessions.")
    ] = Rebuildable.CONTEXTS,
    *,
    json: Json = False,
) -> None:
    """Make a projection again from the whole log, beside servers that run: contexts in a new epoch, tables in place."""
    if what is Rebuildable.SESSIONS:
        listed = run(_rebuild_sessions(settings_or_fail(), quiet=json))
        if json:
            print_json({"object": "projections.rebuild", "events": listed.events, "sessions": listed.sessions})
        else:
            out.print(f"the tables list {listed.sessions} sessions, from {listed.events} events")
        return
    rebuilt = run(_rebuild(settings_or_fail(), quiet=json))
    if json:
        members = {"epoch": rebuilt.epoch, "events": rebuilt.events, "sessions": rebuilt.sessions}
        print_json({"object": "projections.rebuild", **members})
        return
    out.print(f"epoch {rebuilt.epoch} holds {rebuilt.sessions} open sessions, from {rebuilt.events} events")


@app.command()
def verify(*, json: Json = False) -> None:
    """Compare every context with a fold of the log; exit code 1 where one is wrong, with the first of them."""
    verified = run(_verify(settings_or_fail(), quiet=json))
    first = verified.first
    if json:
        named = (
            None if first is None else {"tenant": first.tenant, "session_id": first.session_id, "reason": first.reason}
        )
        members = {"epoch": verified.epoch, "sessions": verified.sessions, "wrong": verified.wrong, "first": named}
        print_json({"object": "projections.verification", "sound": first is None, **members})
    elif first is None:
        out.print(f"[green]sound[/green]: {verified.sessions} contexts are what the log says")
    else:
        out.print(f"[red]{verified.wrong} of {verified.sessions} contexts are wrong[/red]; the first:")
        session = literal(f"session {first.session_id} of tenant {first.tenant}: {first.reason}")
        out.print(f"{session}\n`manent projections rebuild` replaces them all", soft_wrap=True)
    if first is not None:
        raise typer.Exit(ExitCode.NO)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Opened:
    """What the commands work with; ``sessions`` are folded from the log alone."""

    store: SQLEventStore
    sessions: Sessions
    walk: SQLSessionWalk
    projections: Projections


@asynccontextmanager
async def _opened(settings: Settings) -> AsyncGenerator[_Opened, None]:
    async with opened_store(settings) as store:
        rows = open_rows(settings.database, strict=True)
        try:
            log_id = await SQLCheckpoints(rows).log_id()
            async with shared_projections(settings, log_id, SystemClock()) as projections:
                if projections is None:
                    fail("contexts are shared through Redis only: set MANENT_REDIS_URL", ExitCode.USAGE)
                sessions = Sessions(store, LruContextCache(budget_bytes=0))
                with _reachable():
                    yield _Opened(store=store, sessions=sessions, walk=SQLSessionWalk(rows), projections=projections)
        finally:
            await rows.aclose()


@contextmanager
def _reachable() -> Generator[None, None, None]:
    try:
        yield
    except CacheUnavailable as error:
        fail(f"{error.message}; MANENT_REDIS_URL says where it is looked for", ExitCode.UNREACHABLE)


async def _status(settings: Settings) -> dict[str, str | int]:
    async with _opened(settings) as opened:
        shared = opened.projections.shared
        epoch = await shared.epoch()
        size = await shared.size(epoch)
        head = (await opened.store.head()).size
        checkpoint = await opened.projections.subscriptions.position(NAME)
        return {
            "epoch": epoch,
            "checkpoint": checkpoint,
            "head": head,
            "lag": head - checkpoint,
            "sessions": size.sessions,
            "memory_bytes": size.memory_bytes,
        }


async def _rebuild(settings: Settings, *, quiet: bool) -> Rebuilt:
    async with _opened(settings) as opened:
        with _bar("rebuilding", await opened.walk.events(), quiet=quiet) as progress:
            return await RebuildContexts(opened.walk, opened.sessions, opened.projections.shared).run(progress)


async def _rebuild_sessions(settings: Settings, *, quiet: bool) -> SessionIndexRebuilt:
    async with opened_store(settings) as store:
        engine = open_subscription_engine(settings.database)
        try:
            with _bar("rebuilding", (await store.head()).size, quiet=quiet) as progress:
                return await rebuild_session_index(engine, progress=progress)
        finally:
            await engine.dispose()


async def _verify(settings: Settings, *, quiet: bool) -> ContextsVerified:
    async with _opened(settings) as opened:
        with _bar("verifying", None, quiet=quiet) as progress:
            return await VerifyContexts(opened.sessions, opened.projections.shared).run(progress)


@contextmanager
def _bar(name: str, total: int | None, *, quiet: bool) -> Generator[Callable[[int], None], None, None]:
    columns = TextColumn(name), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=err, transient=True, disable=quiet) as bars:
        bar = bars.add_task("", total=total)
        yield lambda done: bars.advance(bar, done)


def register(root: typer.Typer) -> None:
    """Add what this file has to the command line."""
    root.add_typer(app, name="projections")
