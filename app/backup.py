"""Backing the log up while it is written, and checking a log or a backup. Restoring is in ``restore.py``."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from manent.adapters.merkle.checkpoints import open_checkpoint
from manent.adapters.merkle.notes import Verifier
from manent.adapters.store.audit import SQLLogAudit
from manent.adapters.store.checkpoints import SQLCheckpoints
from manent.adapters.store.database import open_store
from manent.adapters.store.open_rows import open_rows
from manent.adapters.store.snapshot import damage, snapshot_head, take_snapshot
from manent.app.backup_file import DATABASE, FORMAT, PRIVATE_MODE, REGISTRY, Manifest, member_of, write_backup
from manent.app.durable import put_in_place, work_folder
from manent.app.settings import Settings
from manent.app.system import RandomIds, SystemClock
from manent.app.transparency import provable
from manent.domain.transparency import Finding, TreeHead
from manent.domain.usecases.verify_log import Verification, VerifyLog

WORK_PREFIX = ".manent-backup-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Backup:
    """A backup that was made: where, how large, and what is in it."""

    path: Path
    size_bytes: int
    manifest: Manifest


@dataclass(frozen=True, slots=True)
class NoteReader:
    """Reads checkpoints that one key signed; implements ``CheckpointVerifier``."""

    verifier: Verifier

    def opened(self, note: str) -> TreeHead:
        """See ``CheckpointVerifier.opened``."""
        return open_checkpoint(note, self.verifier)


async def back_up(settings: Settings, target: Path, *, with_keys: bool) -> Backup:
    """Write the log as it stands to the file ``target``, or to a new file in the folder ``target``.

    First the log is signed, then copied as of one moment, so the checkpoint in the backup is of its end or just before.
    The file has its name once it is whole.

    Raises:
        CheckpointRefused: the log is not what was signed before, and a backup of it would stand beside good ones.
        SnapshotFailed, StoreUnavailable, KeyUnusable: see there; OSError: the backup cannot be written.
    """
    now = datetime.now(UTC)
    in_folder, target = _placed(target)
    with work_folder(target if in_folder else target.parent, WORK_PREFIX) as work:
        verifier_key = await _signed(settings)
        files = _keys(settings, work) if with_keys else {}
        snapshot = work / DATABASE
        await take_snapshot(settings.database, snapshot)
        head = snapshot_head(snapshot)
        files = {DATABASE: snapshot, **files}
        if settings.models_file.is_file():
            files[REGISTRY] = settings.models_file
        manifest = Manifest(
            format=FORMAT,
            created_at=now.isoformat(timespec="seconds"),
            manent=version("manent"),
            database="sqlite" if isinstance(settings.database, Path) else "postgresql",
            log_id=head.log_id,
            position=head.position,
            root=head.root.hex(),
            checkpoint=head.checkpoint,
            verifier_key=verifier_key,
            members={name: member_of(path) for name, path in files.items()},
        )
        if in_folder:
            target = target / f"manent-{now:%Y%m%dT%H%M%SZ}-{head.position}.tar"
        made = work / "backup.tar"
        write_backup(made, manifest, files)
        made.chmod(PRIVATE_MODE)
        put_in_place(made, target)
    return Backup(path=target, size_bytes=target.stat().st_size, manifest=manifest)


async def check_snapshot(path: Path, manifest: Manifest) -> Sequence[Finding]:
    """Everything that is wrong with a backup's log: the file, the tree, its checkpoints, what the manifest says."""
    if problems := damage(path):
        return [Finding(position=0, last_position=0, what=f"the database is damaged: {one}") for one in problems]
    verified = await verify_database(path, manifest.verifier_key, manifest.checkpoint)
    findings = list(verified.findings)
    if (verified.tree.size, verified.tree.root.hex()) != (manifest.position, manifest.root):
        what = (
            f"the log ends at {verified.tree.size} with another root than the manifest promises at {manifest.position}"
        )
        findings.append(Finding(position=verified.tree.size, last_position=manifest.position, what=what))
    return findings


async def verify_database(database: Path, verifier_key: str | None, checkpoint: str | None) -> Verification:
    """Verify a whole log, its checkpoints by ``verifier_key``; it has to continue ``checkpoint``."""
    reader = None if verifier_key is None else NoteReader(Verifier.parse(verifier_key))
    known = [reader.opened(checkpoint)] if reader is not None and checkpoint is not None else []
    rows = open_rows(database)
    try:
        return await VerifyLog(SQLLogAudit(rows), kept=SQLCheckpoints(rows), verifier=reader).run(known=known)
    finally:
        await rows.aclose()


def _placed(target: Path) -> tuple[bool, Path]:
    """Whether a target is a folder, and where it is."""
    target = target.expanduser().absolute()
    return target.is_dir(), target


async def _signed(settings: Settings) -> str:
    """Have the log signed as it stands; the key that did it."""
    store = open_store(settings.database, clock=SystemClock(), ids=RandomIds())
    try:
        async with provable(settings, store, SystemClock()) as log:
            await log.checkpoints.run()
            return str(log.signer.verifier)
    finally:
        await store.aclose()


def _keys(settings: Settings, work: Path) -> dict[str, Path]:
    """Copies of the keys as they are now: what was signed later than the log was copied would refuse the copy."""
    folder = work / "keys"
    folder.mkdir(mode=0o700)
    files: dict[str, Path] = {}
    for path in sorted(settings.keys_folder.iterdir()):
        if path.is_file() and not path.name.startswith("."):
            files[f"keys/{path.name}"] = Path(shutil.copy2(path, folder / path.name))
    return files
