"""A copy of the log where nothing can be written: auditors read it, and are told where they cannot."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from manent.app.home import prepare_folder
from tests.support.audited import Audited, new_log
from tests.support.fakes import FakeClock
from tests.support.server import environment

PR_CAPBSET_DROP, CAP_DAC_OVERRIDE = 24, 1
COMMANDS = (
    ("events", "--json"),
    ("log", "verify"),
    ("export",),
    ("sql", "SELECT count(*) FROM events"),
    ("db", "status"),
)


# Root may write anywhere, unless it gives that up. A process does so before it runs the command: Python code between
# fork and exec (``preexec_fn``) may wait for ever for a lock that another thread of this process holds.
AS_ANYBODY = f"""
import ctypes, os, sys
if os.geteuid() == 0 and sys.platform == "linux":
    ctypes.CDLL(None).prctl({PR_CAPBSET_DROP}, {CAP_DAC_OVERRIDE}, 0, 0, 0)
os.execv(sys.executable, [sys.executable, "-m", "manent.app", *sys.argv[1:]])
"""


def manent(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    """A command of somebody who has to obey the permissions of files."""
    return subprocess.run(
        [sys.executable, "-c", AS_ANYBODY, *arguments],
        env={**environment(home), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def copied(tmp_path: Path) -> Iterator[Path]:
    """A home with a log of 15 events and its key; whatever a test protects is given back at the end."""
    log = asyncio.run(new_log(tmp_path / "odd %20 name?#", sessions=3))
    asyncio.run(log.checkpoint())
    yield log.folder
    log.folder.chmod(0o700)


def protect(folder: Path) -> None:
    """Nobody can make a file there."""
    assert not list(folder.glob("*-wal"))
    folder.chmod(0o500)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_copy_is_read_where_nothing_can_be_written(copied: Path, command: tuple[str, ...]) -> None:
    """Each reading command works, and leaves nothing behind."""
    protect(copied)
    before = sorted(path.name for path in copied.iterdir())
    done = manent(*command, home=copied)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in copied.iterdir()) == before


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_copy_without_its_last_changes_is_refused(copied: Path, command: tuple[str, ...]) -> None:
    """What was written last is in a file beside it: to read the rest as if it were all would be to leave events out."""
    (copied / "manent.db-wal").write_bytes(b"changes")
    copied.chmod(0o500)
    done = manent(*command, home=copied)
    assert done.returncode == 1
    assert "manent.db-wal" in done.stderr
    assert "copy both files" in done.stderr.replace("\n", " ")
    assert "Traceback" not in done.stderr


def test_a_log_in_use_is_not_read_as_if_nobody_wrote_it(copied: Path) -> None:
    """Where the file for the readers' locks is there, it is used: what was committed last is seen."""
    with closing(sqlite3.connect(copied / "manent.db")) as reader:
        reader.execute("SELECT position FROM log_head").fetchone()  # whoever has it open keeps the files beside it
        asyncio.run(Audited(copied, FakeClock()).converse(1, first=3))
        assert (copied / "manent.db-wal").stat().st_size > 0
        copied.chmod(0o500)
        done = manent("sql", "--csv", "SELECT count(*) FROM events", home=copied)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["count_star()", "20"]


def test_nothing_is_served_from_a_read_only_folder(copied: Path, tmp_path: Path) -> None:
    """A server writes: it says so, and where a folder that it can use would be named."""
    home = tmp_path / "home"
    prepare_folder(home)
    shutil.copy(copied / "manent.db", home / "manent.db")
    home.chmod(0o500)
    done = manent("serve", home=home)
    home.chmod(0o700)
    assert done.returncode == 1
    assert "cannot be written" in done.stderr
