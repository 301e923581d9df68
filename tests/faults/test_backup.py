"""Backups: taken under load, restored into nothing, into another database, over what is there, and damaged ones."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import httpx
import pytest

from manent.adapters.merkle.signer import FileSigner
from manent.adapters.store.database import database_name
from manent.app.backup_file import member_of, read_manifest, write_backup
from manent.app.home import only_server
from tests.support.commands import manent
from tests.support.postgres import PostgresServer
from tests.support.server import Server, environment, serving

CHAT = {"model": "default", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}


def talk(server: Server, session_id: str) -> dict[str, Any]:
    """One turn of a session."""
    answer = httpx.post(
        f"{server.address}/v1/chat/completions", json={**CHAT, "session_id": session_id}, timeout=20
    ).raise_for_status()
    body: dict[str, Any] = answer.json()
    return body


def done(*command: str, home: Path, **settings: object) -> str:
    """What a command prints that has to work."""
    ran = manent(*command, home=home, **settings)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def refused(*command: str, home: Path, **settings: object) -> str:
    """What a command says that has to be refused."""
    ran = manent(*command, home=home, **settings)
    assert ran.returncode == 1, ran.stdout
    return ran.stderr


def size_of(home: Path) -> int:
    """How many events a home's log has."""
    with sqlite3.connect(home / "manent.db") as database:
        found: int = database.execute("SELECT position FROM log_head").fetchone()[0]
    database.close()
    return found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a home whose server has stopped, early.tar, and late.tar with more events and the keys."""
    folder = tmp_path_factory.mktemp("made")
    home = folder / "home"
    home.mkdir()
    with serving(home, engine="scripted") as server:
        for number in range(3):
            talk(server, f"s{number}")
        done("db", "backup", str(folder / "early.tar"), home=home)
        talk(server, "later")
        done("db", "backup", str(folder / "late.tar"), "--with-keys", home=home)
        assert server.stop() == 0
    return folder


@pytest.fixture
def home(made: Path, tmp_path: Path) -> Path:
    """A copy of that home."""
    return Path(shutil.copytree(made / "home", tmp_path / "home"))


@pytest.mark.timeout(120)
def test_the_restore_drill(tmp_path: Path) -> None:
    """Backed up under load, destroyed, restored, verified; clients go on where the backup ended."""
    home, backup = tmp_path / "home", tmp_path / "backup.tar"
    home.mkdir()
    enough = Event()

    def keep_talking(number: int) -> int:
        turns = 0
        while not enough.is_set():
            talk(server, f"s{number}")
            turns += 1
        return turns

    with serving(home, engine="scripted") as server, ThreadPoolExecutor(8) as clients:
        talk(server, "mine")
        talking = [clients.submit(keep_talking, number) for number in range(8)]
        time.sleep(0.5)
        report = json.loads(done("db", "backup", str(backup), "--with-keys", "--json", home=home))
        time.sleep(0.3)
        enough.set()
        assert sum(one.result() for one in talking) > 8
        server.kill()
    assert size_of(home) > report["manifest"]["position"] > 2
    shutil.rmtree(home)
    assert "verified" in done("db", "restore", str(backup), home=home)
    assert size_of(home) == report["manifest"]["position"]
    assert "sound" in done("log", "verify", home=home)
    with serving(home, engine="scripted") as server:
        messages = httpx.get(f"{server.address}/v1/sessions/mine/messages", timeout=20).json()["data"]
        assert [message["role"] for message in messages] == ["user", "assistant"]
        talk(server, "mine")
        assert server.stop() == 0
    assert "sound" in done("db", "check", home=home)
    assert json.loads(done("log", "verify", "--json", home=home))["open_completions"] == 0


@pytest.mark.timeout(120)
def test_a_log_goes_from_sqlite_to_postgresql_and_back(made: Path, tmp_path: Path, postgres: PostgresServer) -> None:
    """A backup of either database is restored into either, event for event, with the same signed root."""
    home = Path(shutil.copytree(made / "home" / "keys", tmp_path / "home" / "keys")).parent
    postgres.run("CREATE DATABASE restored")
    url = postgres.url.set(database="restored").render_as_string(hide_password=False)
    try:
        done("db", "restore", str(made / "late.tar"), home=home, database_url=url)
        assert "sound" in done("db", "check", home=home, database_url=url)
        again = refused("db", "restore", str(made / "late.tar"), home=home, database_url=url)
        assert "into an empty one" in again
        with serving(home, engine="scripted", database_url=url) as server:
            talk(server, "s0")
            assert server.stop() == 0
        done("db", "backup", str(tmp_path / "back.tar"), home=home, database_url=url)
    finally:
        postgres.run("DROP DATABASE restored WITH (FORCE)")
    done("db", "restore", str(tmp_path / "back.tar"), home=home)
    assert "sound" in done("log", "verify", home=home)
    assert size_of(home) > size_of(made / "home")
    first = done("events", "--json", "--limit", "5", home=made / "home")
    assert done("events", "--json", "--limit", "5", home=home) == first


def test_what_is_there_is_not_restored_over(made: Path, home: Path) -> None:
    """Without --force nothing changes; with it the old database is kept under another name."""
    size = size_of(home)
    assert "is there already" in refused("db", "restore", str(made / "late.tar"), home=home)
    restored = json.loads(done("db", "restore", str(made / "late.tar"), "--force", "--json", home=home))
    assert Path(restored["kept"]).is_file()
    assert size_of(home) <= size
    assert not list(home.glob(".manent-restore-*"))


def test_a_restore_over_a_newer_log_is_noticed(made: Path, home: Path) -> None:
    """The signer remembers more than the old backup has: refused, also where the database is gone, unless forced."""
    for path in home.glob("manent.db*"):
        path.unlink()
    assert "what came later is lost" in refused("db", "restore", str(made / "early.tar"), home=home)
    assert not (home / "manent.db").exists()
    ran = manent("db", "restore", str(made / "early.tar"), "--force", home=home)
    assert (ran.returncode, "will be signed" in ran.stderr) == (0, True), ran.stderr
    for command in (("log", "checkpoint"), ("db", "backup", str(home / "bad.tar"))):
        assert "not a continuation" in refused(*command, home=home)
    assert not (home / "bad.tar").exists()


def test_a_restore_without_the_key_says_so(made: Path, tmp_path: Path) -> None:
    """A backup has no keys unless they were asked for; with them a new home is whole."""
    ran = manent("db", "restore", str(made / "early.tar"), home=tmp_path / "bare")
    assert (ran.returncode, "put the keys folder back" in ran.stderr) == (0, True), ran.stderr
    with tarfile.open(made / "early.tar") as tar:
        assert not [name for name in tar.getnames() if name.startswith("keys/")]
    done("db", "restore", str(made / "late.tar"), home=tmp_path / "whole")
    assert (tmp_path / "whole" / "keys" / "log-signing.key").stat().st_mode & 0o077 == 0
    assert "sound" in done("log", "verify", home=tmp_path / "whole")


def test_a_backup_of_another_key_is_refused(made: Path, tmp_path: Path) -> None:
    """Its checkpoints would not verify by the key that is here."""
    FileSigner(tmp_path / "keys", "log_another")
    assert "signed by another key" in refused("db", "restore", str(made / "late.tar"), home=tmp_path)


def damaged(source: Path, target: Path, how: str) -> Path:
    """A backup, damaged."""
    raw = bytearray(source.read_bytes())
    if how == "cut":
        raw = raw[: len(raw) // 2]
    elif how == "flipped":
        raw[len(raw) // 2] ^= 1
    elif how == "text":
        raw = bytearray(b"this is no backup\n" * 100)
    elif how == "empty":
        raw = bytearray()
    target.write_bytes(raw)
    return target


@pytest.mark.parametrize("how", ["cut", "flipped", "text", "empty", "missing"])
def test_a_damaged_backup_changes_nothing(how: str, made: Path, tmp_path: Path) -> None:
    """It is named, and no database appears."""
    bad = tmp_path / "missing.tar" if how == "missing" else damaged(made / "late.tar", tmp_path / "bad.tar", how)
    for command in (("db", "restore", str(bad)), ("db", "check", str(bad))):
        assert bad.name in refused(*command, home=tmp_path / "home")
    assert not (tmp_path / "home" / "manent.db").exists()
    assert not list((tmp_path / "home").glob(".manent-*"))


def rewritten(source: Path, folder: Path, statement: str) -> Path:
    """A backup whose database was changed by somebody who made a new manifest for it."""
    work = folder / "work"
    with tarfile.open(source) as tar:
        tar.extractall(work, filter="data")
    database = sqlite3.connect(work / "manent.db", isolation_level=None)
    for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        database.execute(f"DROP TRIGGER {name}")
    database.execute(statement)
    database.close()
    manifest = read_manifest(source)
    files = {name: work / name for name in manifest.members}
    for name, path in files.items():
        manifest.members[name] = member_of(path)
    write_backup(folder / "forged.tar", manifest, files)
    return folder / "forged.tar"


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE event_payloads SET payload = replace(payload, 'hello', 'HELLO') WHERE position = 2",
        "UPDATE event_headers SET actor = 'eve' WHERE position = 1",
        "UPDATE log_head SET position = position - 1",
    ],
)
def test_a_forged_backup_does_not_verify(statement: str, made: Path, tmp_path: Path) -> None:
    """Right digests in the manifest do not help: the tree is checked before anything is put in place."""
    forged = rewritten(made / "late.tar", tmp_path, statement)
    assert "does not verify" in refused("db", "restore", str(forged), home=tmp_path / "home")
    assert manent("db", "check", str(forged), home=tmp_path / "home").returncode == 1
    assert not (tmp_path / "home" / "manent.db").exists()


def test_nothing_is_restored_under_a_running_server(made: Path, home: Path) -> None:
    """It has the database's lock."""
    with only_server(home / "manent.db"):
        assert f"process {os.getpid()}" in refused("db", "restore", str(made / "late.tar"), "--force", home=home)


def test_an_interrupted_backup_leaves_nothing_that_looks_like_one(home: Path, tmp_path: Path) -> None:
    """Killed in the middle: no file of its name; the next backup clears what was left."""
    into = tmp_path / "backups"
    into.mkdir()
    hook = (
        "import os, signal, manent.app.backup as backup\n"
        "backup.write_backup = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "import sys; sys.argv = ['manent', 'db', 'backup', sys.argv[1]]\n"
        "from manent.app.cli import main; main()\n"
    )
    killed = subprocess.run(
        [sys.executable, "-c", hook, str(into / "a.tar")], env=environment(home), cwd=home, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    (left,) = into.iterdir()
    assert left.name.startswith(".manent-backup-")
    printed = done("db", "backup", str(into), home=home)
    (backup,) = into.iterdir()
    assert str(backup) in printed
    assert "sound" in done("db", "check", str(backup), home=home)


def test_a_full_disk_leaves_the_old_backup(home: Path, tmp_path: Path) -> None:
    """The file under the name is the last whole one."""
    target = tmp_path / "backup.tar"
    target.write_bytes(b"the old one")
    limited = f"ulimit -f 100; exec {sys.executable} -m manent.app db backup {target}"
    ran = subprocess.run(
        ["bash", "-c", f"trap '' XFSZ; {limited}"],
        env=environment(home),
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 1, ran.stdout
    assert "Traceback" not in ran.stderr
    assert target.read_bytes() == b"the old one"
    assert list(tmp_path.glob(".manent-backup-*")) == []


def test_a_database_that_is_not_there_is_told(tmp_path: Path) -> None:
    """A backup of nothing is none."""
    assert "there is no database" in refused("db", "backup", str(tmp_path / "x.tar"), home=tmp_path)
    assert database_name(tmp_path / "manent.db") in refused("db", "check", home=tmp_path)


def test_an_interrupted_restore_leaves_nothing_half(made: Path, tmp_path: Path) -> None:
    """Killed at the last moment: there is no database yet; the next restore clears what was left, and is whole."""
    home = tmp_path / "home"
    hook = (
        "import os, signal, manent.app.restore as restore\n"
        "restore.put_in_place = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "import sys; sys.argv = ['manent', 'db', 'restore', sys.argv[1]]\n"
        "from manent.app.cli import main; main()\n"
    )
    killed = subprocess.run(
        [sys.executable, "-c", hook, str(made / "late.tar")], env=environment(home), cwd=tmp_path, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    assert not list(home.glob("manent.db"))
    assert list(home.glob(".manent-restore-*"))
    done("db", "restore", str(made / "late.tar"), home=home)
    assert list(home.glob(".manent-restore-*")) == []
    assert "sound" in done("db", "check", home=home)
