"""Restoring a backup: everything is checked before anything is put in place, and then it is in place at once."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from manent.adapters.inference.durable import write_through
from manent.adapters.merkle.checkpoints import open_checkpoint
from manent.adapters.merkle.notes import Verifier
from manent.adapters.merkle.signer import KEY_FILE, VERIFIER_FILE
from manent.adapters.store.migrate import upgrade
from manent.adapters.store.snapshot import SnapshotFailed, load_snapshot, settle
from manent.app.backup import check_snapshot
from manent.app.backup_file import DATABASE, REGISTRY, Manifest, extract
from manent.app.durable import put_in_place, work_folder
from manent.app.home import only_server, prepare_folder
from manent.app.settings import Settings
from manent.domain.transparency import CheckpointInvalid, Finding

WORK_PREFIX = ".manent-restore-"
KEYS = "keys/"


class RestoreRefused(Exception):
    """Nothing was put in place; the message says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What is in place now. ``kept`` is where the database lies that was there before; ``warnings`` are sentences."""

    manifest: Manifest
    kept: Path | None
    warnings: Sequence[str]


async def check_backup(source: Path, work_in: Path) -> tuple[Manifest, Sequence[Finding]]:
    """What a backup is, and everything that is wrong with it; ``work_in`` is where it is unpacked for the while.

    Raises:
        BackupInvalid: it is none; MigrationError: it is of a newer Manent; OSError: there is no room.
    """
    with work_folder(work_in, WORK_PREFIX) as work:
        manifest = extract(source, work)
        upgrade(work / DATABASE)
        return manifest, await check_snapshot(work / DATABASE, manifest)


async def restore(settings: Settings, source: Path, *, verify: bool, force: bool) -> Restored:
    """Put a backup in the place of the database that ``settings`` name.

    ``force`` restores over a database that is there (which is kept under another name), and over the memory of a
    longer log; it never takes a key away.

    Raises:
        RestoreRefused: the backup does not verify, or something is in its way. BackupInvalid, HomeError (a server
            runs), MigrationError, SnapshotFailed, StoreUnavailable: see there. OSError: there is no room.
    """
    database = settings.database
    folder = database.parent if isinstance(database, Path) else settings.home
    prepare_folder(settings.home)
    prepare_folder(folder)
    with ExitStack() as stack:
        if isinstance(database, Path):
            stack.enter_context(only_server(database))
        work = stack.enter_context(work_folder(folder, WORK_PREFIX))
        manifest = extract(source, work)
        made = work / DATABASE
        upgrade(made)
        settle(made)
        if verify and (findings := await check_snapshot(made, manifest)):
            raise RestoreRefused(
                f"the backup does not verify, first at position {findings[0].position}: {findings[0].what}"
            )
        warnings = _judged(settings, manifest, work, force=force)
        kept = None
        if isinstance(database, Path):
            kept = _put_database(made, database, force=force)
        else:
            upgrade(database)
            await load_snapshot(made, database)
        _put_others(settings, work)
    return Restored(manifest=manifest, kept=kept, warnings=warnings)


def _judged(settings: Settings, manifest: Manifest, work: Path, *, force: bool) -> list[str]:
    """Refuse what would part the log from its key or from what was signed; what ``force`` lets pass is a warning."""
    keys, warnings = settings.keys_folder, []
    own_key, brought = keys / KEY_FILE, work / KEYS / KEY_FILE
    if own_key.exists():
        own = _read(keys / VERIFIER_FILE)
        if own and manifest.verifier_key and _public(own) != _public(manifest.verifier_key):
            raise RestoreRefused(
                f"the backup's log is signed by another key than {own_key}; put its own keys there, or restore into "
                "another MANENT_HOME"
            )
    elif not brought.exists():
        warnings.append(
            f"the signing key is neither here nor in the backup: put the keys folder back at {keys} before the next "
            "start, which otherwise makes a new key, and the checkpoints of the old one verify no more"
        )
    remembered = _remembered_size(keys / f"{manifest.log_id}.checkpoint", manifest)
    if remembered is not None and remembered > manifest.position:
        lost = (
            f"the log had {remembered} events when it was signed last, and the backup ends at {manifest.position}: "
            "what came later is lost"
        )
        if not force:
            raise RestoreRefused(f"{lost}; restore a later backup, or say --force")
        warnings.append(f"{lost}, and nothing more of this log will be signed")
    return warnings


def _public(verifier_key: str) -> bytes:
    """The key itself, without the name of the log."""
    try:
        return Verifier.parse(verifier_key).public_key
    except CheckpointInvalid as error:
        raise RestoreRefused(f"{verifier_key!r:.200} is no verifier key: {error.message}") from error


def _remembered_size(memory: Path, manifest: Manifest) -> int | None:
    note = _read(memory)
    if not note or manifest.verifier_key is None:
        return None
    try:
        return open_checkpoint(note, Verifier.parse(manifest.verifier_key)).size
    except CheckpointInvalid as error:
        raise RestoreRefused(
            f"{memory} is not what the key of the backup's log signed: {error.message}; move it away"
        ) from error


def _put_database(made: Path, database: Path, *, force: bool) -> Path | None:
    """Put the file in place in one step; what was there has another name before that."""
    if not database.exists():
        put_in_place(made, database)
        return None
    if not force:
        raise RestoreRefused(
            f"{database} is there already; restore into another MANENT_HOME, or say --force, which keeps it beside "
            "under another name"
        )
    kept = database.with_name(f"{database.name}.before-{datetime.now(UTC):%Y%m%dT%H%M%SZ}")
    beside = [path for ending in ("-wal", "-shm") if (path := database.with_name(database.name + ending)).exists()]
    try:
        settle(database)
    except (SnapshotFailed, sqlite3.Error):  # damaged: it is kept as it is, with the files beside it
        for path in beside:
            shutil.copy2(path, kept.with_name(kept.name + path.name[-4:]))
    os.link(database, kept)
    for path in beside:
        path.unlink(missing_ok=True)  # what is in it belongs to the database that goes
    put_in_place(made, database)
    return kept


def _put_others(settings: Settings, work: Path) -> None:
    """Keys and registry, where none are there: what is there stays."""
    registry = work / REGISTRY
    if registry.exists() and not settings.models_file.exists():
        settings.models_file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(registry, settings.models_file)
    keys = work / KEYS
    if not keys.is_dir():
        return
    settings.keys_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in keys.iterdir():
        target = settings.keys_folder / path.name
        if not target.exists():
            write_through(path)
            path.replace(target)
    write_through(settings.keys_folder)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8") if path.exists() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise RestoreRefused(f"{path} cannot be read: {error}") from error
