"""``manent batches``: the local operator's, on the database itself; a server hears of a cancel within seconds."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any

import typer
from rich.table import Column, Table

from manent.adapters.http.batches import batch_members
from manent.app.batches import BatchCases, batch_cases
from manent.app.cli.database import opened_store
from manent.app.cli.output import literal, out, print_json, run, settings_or_fail
from manent.app.system import SystemClock
from manent.domain.access import LOCAL_OPERATOR
from manent.domain.batches import BatchState

ID_CHARS = 38

app = typer.Typer(help="Batches: requests of a file, answered in the background.", no_args_is_help=True)
Json = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line, as the API has it.")]
Id = Annotated[str, typer.Argument(help="Id of the batch, as batch_….")]


@app.command("list")
def list_batches(
    *,
    limit: Annotated[int, typer.Option(min=1, max=100, help="How many, the newest first.")] = 20,
    json: Json = False,
) -> None:
    """List batches."""

    async def list_them() -> Sequence[BatchState]:
        async with _opened() as cases:
            return (await cases.batches.page(LOCAL_OPERATOR, after=None, limit=limit)).batches

    found = [batch_members(state) for state in run(list_them())]
    if json:
        for members in found:
            print_json(members)
        return
    table = Table(Column("id", min_width=ID_CHARS), "endpoint", "state", "answered", box=None)
    for members in found:
        table.add_row(*map(literal, (members["id"], members["endpoint"], members["status"], _counts(members))))
    out.print(table)


@app.command()
def show(batch_id: Id, *, json: Json = False) -> None:
    """Show a batch, and what is wrong with its file."""

    async def load() -> BatchState:
        async with _opened() as cases:
            return await cases.batches.get(LOCAL_OPERATOR, batch_id)

    _print(batch_members(run(load())), json=json)


@app.command()
def cancel(batch_id: Id, *, json: Json = False) -> None:
    """Call a batch off; what is answered stays."""

    async def cancel_it() -> BatchState:
        async with _opened() as cases:
            return await cases.batches.cancel(LOCAL_OPERATOR, batch_id)

    _print(batch_members(run(cancel_it())), json=json)


def _print(members: dict[str, Any], *, json: bool) -> None:
    if json:
        print_json(members)
        return
    out.print(literal(f"{members['id']} is {members['status']}: {_counts(members)}"), soft_wrap=True)
    for name in ("input_file_id", "output_file_id", "error_file_id"):
        if members[name] is not None:
            out.print(literal(f"{name} {members[name]}"), soft_wrap=True)
    for mistake in (members["errors"] or {"data": ()})["data"]:
        where = "" if mistake["line"] is None else f"line {mistake['line']}: "
        out.print(literal(f"{where}{mistake['code']}: {mistake['message']}"), soft_wrap=True)


def _counts(members: dict[str, Any]) -> str:
    counts = members["request_counts"]
    return f"{counts['completed']} of {counts['total']}, {counts['failed']} failed"


@asynccontextmanager
async def _opened() -> AsyncGenerator[BatchCases, None]:
    settings = settings_or_fail()
    async with opened_store(settings) as store, batch_cases(settings, store, SystemClock()) as cases:
        yield cases


def register(root: typer.Typer) -> None:
    """Add what this file has to the command line."""
    root.add_typer(app, name="batches")
