"""``manent log``: the log verified, signed and proved, with or without a server; proofs are verified with neither."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from manent.adapters.merkle.checkpoints import ProofFile, open_checkpoint
from manent.adapters.merkle.notes import Verifier
from manent.adapters.store.audit import SQLLogAudit
from manent.adapters.store.codec import header_bytes
from manent.adapters.store.open_rows import open_rows
from manent.app.cli.database import opened_store
from manent.app.cli.output import ExitCode, err, fail, literal, out, print_json, run, settings_or_fail
from manent.app.settings import Settings
from manent.app.system import SystemClock
from manent.app.transparency import Transparency, provable
from manent.domain.transparency import CheckpointInvalid, TreeHead
from manent.domain.usecases.verify_log import Verification, VerifyLog

NOTE_CHARS_MAX = 2_000_000

app = typer.Typer(help="The log: verify it, sign it, prove what is in it.", no_args_is_help=True)


@app.command()
def verify(
    *,
    saved: Annotated[
        Path | None, typer.Option("--from", help="A saved checkpoint: verify that the log continues it, and the rest.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Verify the whole log; exit code 1 where something is wrong, with the first bad position."""
    settings = settings_or_fail()
    note = None if saved is None else _read(saved)
    result = run(verify_settings(settings, note, quiet=json))
    if json:
        print_json({"object": "log.verification", "sound": result.sound, **_members(result)})
    else:
        _print(result)
    if not result.sound:
        raise typer.Exit(ExitCode.NO)


@app.command()
def checkpoint() -> None:
    """Sign the log as it stands, and print the checkpoint: keep it where the log's operator cannot reach it."""
    issued = run(_checkpoint(settings_or_fail()))
    typer.echo(issued, nl=False)


@app.command()
def prove(position: Annotated[int, typer.Argument(help="Position of the event.", min=1)]) -> None:
    """Print a proof that an event is in the log (C2SP tlog-proof), with its header and a signed checkpoint."""
    typer.echo(str(run(_prove(settings_or_fail(), position))), nl=False)


@app.command("verify-proof")
def verify_proof(
    file: Annotated[Path, typer.Argument(help="A .tlog-proof.")],
    *,
    key: Annotated[str, typer.Option(help="The log's verifier key, as `manent log key` prints it.")],
) -> None:
    """Verify a proof; needs neither server nor database. Prints the header that was proved."""
    try:
        verifier = Verifier.parse(key)
    except CheckpointInvalid as error:
        fail(error.message, ExitCode.USAGE)
    try:
        proof = ProofFile.parse(_read(file))
        head = proof.verify(verifier)
    except CheckpointInvalid as error:
        fail(f"the proof does not hold: {error.message}")
    err.print(f"[green]proved[/green]: position {proof.index + 1} of {head.size} of {literal(verifier.name)}")
    typer.echo(proof.entry.decode("utf-8", "replace"))


@app.command()
def key() -> None:
    """Print the log's verifier key, for whoever is to verify checkpoints and proofs."""
    typer.echo(run(_key(settings_or_fail())))


async def verify_settings(settings: Settings, note: str | None = None, *, quiet: bool = True) -> Verification:
    """Verify the log of the settings, from a saved checkpoint on where one is given."""
    columns = TextColumn("verifying"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    async with _opened(settings) as log:
        saved = None if note is None else open_checkpoint(note, log.signer.verifier)
        last = await log.signer.last()
        known: list[TreeHead] = [] if last is None else [last]
        rows = open_rows(settings.database)
        try:
            with Progress(*columns, console=err, transient=True, disable=quiet) as bars:
                bar = bars.add_task("", total=None)
                return await VerifyLog(SQLLogAudit(rows), kept=log.kept, verifier=log.signer).run(
                    saved=saved, known=known, report=lambda done, total: bars.update(bar, completed=done, total=total)
                )
        finally:
            await rows.aclose()


async def _checkpoint(settings: Settings) -> str:
    async with _opened(settings) as log:
        return (await log.checkpoints.run()).note


async def _prove(settings: Settings, position: int) -> ProofFile:
    async with _opened(settings) as log:
        issued = await log.checkpoints.run()
        proof = await log.proofs.inclusion(position, size=issued.size)
        entry = await log.proofs.entry(position)
    return ProofFile(entry=header_bytes(entry.header), index=position - 1, hashes=proof.hashes, checkpoint=issued.note)


async def _key(settings: Settings) -> str:
    async with _opened(settings) as log:
        return str(log.signer.verifier)


@asynccontextmanager
async def _opened(settings: Settings) -> AsyncGenerator[Transparency, None]:
    """The database's provable side."""
    async with opened_store(settings) as store, provable(settings, store, SystemClock()) as log:
        yield log


def _read(path: Path) -> str:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return file.read(NOTE_CHARS_MAX + 1)
    except (OSError, UnicodeDecodeError) as error:
        fail(f"{path} cannot be read: {error}", ExitCode.USAGE)


def _print(result: Verification) -> None:
    for finding in result.findings:
        place = f"position {finding.position}"
        if finding.last_position != finding.position:
            place = f"positions {finding.position} to {finding.last_position}"
        out.print(f"[red]wrong[/red] at {place}: {literal(finding.what)}", soft_wrap=True)
    details = f"{result.tree.size} events, root {result.tree.root.hex()}, {result.checkpoints} checkpoints compared"
    if result.verified_from:
        details += f", verified from {result.verified_from} on"
    details += f", {result.open_completions} completions open, {result.erased} payloads erased"
    out.print("[green]sound[/green]:" if result.sound else "[red]not sound[/red]:", details, soft_wrap=True)


def _members(result: Verification) -> dict[str, object]:
    return {
        "size": result.tree.size,
        "root": result.tree.root.hex(),
        "verified_from": result.verified_from,
        "findings": result.findings,
        "erased": result.erased,
        "open_completions": result.open_completions,
        "checkpoints": result.checkpoints,
    }


def register(root: typer.Typer) -> None:
    """Add what this file has to the command line."""
    root.add_typer(app, name="log")
