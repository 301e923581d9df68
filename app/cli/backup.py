"""``manent db backup``, ``restore`` and ``check``."""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from manent.adapters.store.database import database_name
from manent.adapters.store.migrate import MigrationError
from manent.adapters.store.snapshot import damage
from manent.app.backup import back_up
from manent.app.backup_file import BackupInvalid
from manent.app.cli.audit import verify_settings
from manent.app.cli.database import check_revision
from manent.app.cli.output import ExitCode, err, fail, literal, out, print_json, run, settings_or_fail
from manent.app.home import HomeError
from manent.app.restore import RestoreRefused, check_backup, restore
from manent.domain.errors import DomainError
from manent.domain.transparency import Finding

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def backup_database(
    target: Annotated[Path, typer.Argument(help="The file to write, or a folder to write a new file in.")],
    *,
    with_keys: Annotated[
        bool, typer.Option("--with-keys", help="With the keys: who has the file can then sign as this log.")
    ] = False,
    json: Json = False,
) -> None:
    """Back the database up, beside a running server or without one; the file appears once it is whole."""
    settings = settings_or_fail()
    with _failing():
        check_revision(settings)
        made = run(back_up(settings, target, with_keys=with_keys))
    if json:
        print_json({"object": "backup", "path": str(made.path), "bytes": made.size_bytes, "manifest": made.manifest})
        return
    out.print(
        f"{literal(made.path)}: {made.manifest.position} events of {made.manifest.log_id}, {made.size_bytes} bytes, "
        + ("keys included" if with_keys else "without keys"),
        soft_wrap=True,
    )


def restore_database(
    source: Annotated[Path, typer.Argument(help="A backup.")],
    *,
    verify: Annotated[
        bool, typer.Option("--verify/--no-verify", help="Check the whole tree before anything is put in place.")
    ] = True,
    force: Annotated[
        bool, typer.Option("--force", help="Also over a database that is there, which is kept under another name.")
    ] = False,
    json: Json = False,
) -> None:
    """Restore a backup; exit code 1, and nothing changed, where it does not verify or something is in its way."""
    settings = settings_or_fail()
    with _failing():
        done = run(restore(settings, source, verify=verify, force=force))
    if json:
        kept = None if done.kept is None else str(done.kept)
        print_json({"object": "restore", "kept": kept, "warnings": done.warnings, "manifest": done.manifest})
        return
    for warning in done.warnings:
        err.print(f"[yellow]warning[/]: {literal(warning)}", soft_wrap=True)
    if done.kept is not None:
        err.print(f"the database that was there is {literal(done.kept)} now", soft_wrap=True)
    name = literal(database_name(settings.database))
    checked = ", verified" if verify else ""
    out.print(f"restored {done.manifest.position} events to {name}{checked}", soft_wrap=True)


def check_database(
    source: Annotated[Path | None, typer.Argument(help="A backup; without it, the database of the settings.")] = None,
    *,
    json: Json = False,
) -> None:
    """Check a database or a backup: the file, the schema's revision, the whole tree; exit code 1 where one is wrong."""
    with _failing():
        findings, size = _check_own() if source is None else _check_backup(source)
    if json:
        print_json({"object": "database.check", "sound": not findings, "events": size, "findings": findings})
    else:
        for finding in findings:
            out.print(f"[red]wrong[/] at position {finding.position}: {literal(finding.what)}", soft_wrap=True)
        if not findings:
            out.print(f"[green]sound[/]: {size} events")
    if findings:
        raise typer.Exit(ExitCode.NO)


def _check_own() -> tuple[Sequence[Finding], int]:
    settings = settings_or_fail()
    check_revision(settings)
    if isinstance(settings.database, Path) and (problems := damage(settings.database)):
        return [Finding(position=0, last_position=0, what=f"the file is damaged: {one}") for one in problems], 0
    verified = run(verify_settings(settings))
    return verified.findings, verified.tree.size


def _check_backup(source: Path) -> tuple[Sequence[Finding], int]:
    with tempfile.TemporaryDirectory(prefix="manent-check-") as folder:
        manifest, findings = run(check_backup(source, Path(folder)))
        return findings, manifest.position


@contextmanager
def _failing() -> Generator[None, None, None]:
    try:
        yield
    except (BackupInvalid, RestoreRefused, MigrationError, HomeError) as error:
        fail(str(error))
    except DomainError as error:
        fail(error.message)
    except OSError as error:
        fail(f"{error.filename or 'the disk'}: {error.strerror or error}")
