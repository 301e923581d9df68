"""``manent doctor``: each thing that may be wrong is named, with what to do; ``manent smoke`` tries a live server."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from manent.adapters.inference.script import Script
from manent.adapters.store.database import open_store
from manent.app.home import only_server
from manent.app.settings import Settings
from manent.app.system import RandomIds, SystemClock
from manent.app.webhooks import webhook_cases
from manent.domain.access import LOCAL_OPERATOR
from manent.domain.errors import GenerationFailed
from manent.domain.records import EventFilter
from manent.domain.usecases.manage_webhooks import WebhookWish
from tests.support.audited import new_log
from tests.support.certificates import Authority
from tests.support.commands import manent
from tests.support.http import running_server
from tests.support.server import manent_process

SCRIPTED = {"engine": "scripted"}


def examined(home: Path, **settings: object) -> tuple[int, dict[str, Any]]:
    """The exit code, and the findings by their check."""
    done = manent("doctor", "--json", home=home, **{**SCRIPTED, **settings})
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert all(finding["advice"] or finding["verdict"] == "ok" for finding in found)
    return done.returncode, {finding["check"]: finding for finding in found}


@pytest.fixture
async def home(tmp_path: Path) -> Path:
    """A home with a small signed log."""
    log = await new_log(tmp_path / "home", sessions=2)
    await log.checkpoint()
    await asyncio.to_thread(log.folder.chmod, 0o700)
    return log.folder


def test_a_sound_home_is_ok(home: Path) -> None:
    """Every check is there, and none fails; what is only missing is a warning."""
    code, found = examined(home)
    assert code == 0, found
    assert {"settings", "home", "disk", "database", "keys", "log", "clock", "port"} <= set(found)
    assert "10 events, 10 of them signed" in found["log"]["detail"]
    assert [name for name, finding in found.items() if finding["verdict"] == "failure"] == []


def change_nothing(_home: Path) -> None:
    """It is the settings that are wrong."""


def open_keys(home: Path) -> None:
    """Others may read the key."""
    (home / "keys" / "log-signing.key").chmod(0o644)


def damage_memory(home: Path) -> None:
    """What was signed last is unreadable."""
    (memory,) = (home / "keys").glob("*.checkpoint")
    memory.write_text("nothing", encoding="utf-8")


def go_back(home: Path) -> None:
    """The log ends before what was signed of it."""
    with closing(sqlite3.connect(home / "manent.db")) as database, database:
        database.execute("DROP TRIGGER log_head_forward")
        database.execute("UPDATE log_head SET position = 5")


def lose_keys(home: Path) -> None:
    """The keys folder is gone."""
    (home / "keys").rename(home / "elsewhere")


def come_from_the_future(home: Path) -> None:
    """The last event is of tomorrow."""
    with closing(sqlite3.connect(home / "manent.db")) as database, database:
        database.execute("DROP TRIGGER log_head_forward")
        database.execute("UPDATE log_head SET recorded_at_us = ?", (int((time.time() + 86400) * 1_000_000),))


def open_home(home: Path) -> None:
    """Others may look in."""
    home.chmod(0o755)


def break_database(home: Path) -> None:
    """The file is no database."""
    for path in home.glob("manent.db*"):
        path.unlink()
    (home / "manent.db").write_bytes(b"no database" * 1000)


def break_registry(home: Path) -> None:
    """A key of models.toml has a typo."""
    (home / "models.toml").write_text('[[models]]\nid = "a"\nidle_timeout = 5\n', encoding="utf-8")


def have_dead_letter(home: Path) -> None:
    """A receiver did not take an event."""
    asyncio.run(_with_webhook(home, abandon=True))


def lose_webhook_key(home: Path) -> None:
    """The key of the webhooks' secrets is another than the one that they were made with."""
    asyncio.run(_with_webhook(home, abandon=False))
    (home / "keys" / "webhooks.key").write_bytes(bytes(32))


async def _with_webhook(home: Path, *, abandon: bool) -> None:
    settings, clock = Settings(home=home, webhook_urls="http", _env_file=None), SystemClock()
    store = open_store(settings.database, clock=clock, ids=RandomIds())
    async with webhook_cases(settings, store, clock) as cases:
        webhook, _ = await cases.manage.create(LOCAL_OPERATOR, WebhookWish(url="https://a.example/"))
        if abandon:
            (entry,) = await store.query(EventFilter(), limit=1)
            await cases.letters.abandon(webhook, entry, attempts=10, reason="the receiver answered 503")
    await store.aclose()


def tell_passwords(home: Path) -> None:
    """Others may read the file with the database's password (a command runs in its home)."""
    (home / ".env").write_text("MANENT_REDIS_URL=redis://:secret@127.0.0.1:1/0\n", encoding="utf-8")
    (home / ".env").chmod(0o644)


def expire_certificate(home: Path) -> None:
    """Its last day is behind."""
    Authority(home / "tls").issue(not_after=datetime.now(UTC) - timedelta(hours=1))


def near_the_end(home: Path) -> None:
    """It is valid for some days more."""
    Authority(home / "tls").issue(not_after=datetime.now(UTC) + timedelta(days=3))
    (home / "tls" / "server.key").chmod(0o600)


def show_certificates_key(home: Path) -> None:
    """Others may read the certificate's key."""
    Authority(home / "tls").issue(not_after=datetime.now(UTC) + timedelta(days=90))
    (home / "tls" / "server.key").chmod(0o644)


TLS = {"tls_certificate": "tls/server.crt", "tls_key": "tls/server.key"}
JWT = {"jwt_algorithm": "RS256", "jwt_issuer": "https://a.example", "jwt_audience": "manent"}


@pytest.mark.parametrize(
    ("wrong", "settings", "check", "verdict", "says"),
    [
        (open_keys, {}, "keys", "failure", "log-signing.key"),
        (damage_memory, {}, "log", "failure", "is not what this key signed last"),
        (go_back, {}, "log", "failure", "not a continuation of the 10"),
        (lose_keys, {}, "log", "warning", "its key is missing"),
        (come_from_the_future, {}, "clock", "warning", "the last event is of"),
        (open_home, {}, "home", "warning", "others can read"),
        (break_database, {}, "database", "failure", "not a database"),
        (break_registry, {}, "models", "failure", "did you mean 'idle_timeout_s'?"),
        (change_nothing, {"redis_url": "redis://127.0.0.1:1/0"}, "redis", "warning", "Redis"),
        (change_nothing, {"database_url": "postgresql+asyncpg://127.0.0.1:1/x"}, "database", "failure", "not answer"),
        (change_nothing, {"plugins": "nobody"}, "plugins", "failure", "no such plugin is installed"),
        (change_nothing, {"engine": "nobody"}, "plugins", "failure", "no plugin brings the engine"),
        (have_dead_letter, {}, "webhooks", "warning", "has 1 dead letters, the last: the receiver answered 503"),
        (lose_webhook_key, {}, "webhooks", "warning", "another key than this one's made"),
        (tell_passwords, {}, "home", "warning", "/.env"),
        (change_nothing, TLS, "tls", "failure", "No such file"),
        (expire_certificate, TLS, "tls", "failure", "was valid until"),
        (near_the_end, TLS, "tls", "warning", "is valid until"),
        (show_certificates_key, TLS, "tls", "warning", "others can read"),
        (change_nothing, {"host": "192.0.2.1"}, "access", "failure", "neither an API key nor a JWT"),
        (change_nothing, {"unix_socket": "no/where"}, "socket", "failure", "its folder is missing"),
        (change_nothing, {**JWT, "jwt_jwks": "no.json"}, "jwks", "failure", "no.json"),
        (change_nothing, {**JWT, "jwt_jwks": "http://127.0.0.1:1/k"}, "jwks", "warning", "127.0.0.1:1"),
    ],
    ids=lambda value: value.__name__ if callable(value) else None,
)
def test_what_is_wrong_is_named(
    home: Path, *, wrong: Callable[[Path], None], settings: dict[str, object], check: str, verdict: str, says: str
) -> None:
    """A failure is exit code 1, a warning is not; nothing else fails with it."""
    wrong(home)
    code, found = examined(home, **settings)
    assert (found[check]["verdict"], says in found[check]["detail"]) == (verdict, True), found[check]
    assert code == (verdict == "failure")


def test_settings_with_typos_are_named(home: Path) -> None:
    """Exit code 2, with the nearest name."""
    done = manent("doctor", home=home, prot=9000)
    assert (done.returncode, "MANENT_PROT is no setting; did you mean MANENT_PORT?" in done.stderr) == (2, True)


def test_a_runner_is_started_and_evaluates(home: Path) -> None:
    """With MLX itself, as runners have it; models that do not fit are told before anybody waits for one."""
    code, found = examined(home, engine="mlx", memory_total_gb=0.001)
    assert (code, found["runner"]["verdict"]) == (0, "ok"), found["runner"]
    assert "Device(" in found["runner"]["detail"]
    assert found["memory"]["detail"] == "0.0 of 0.0 GB for models"


@pytest.mark.timeout(60)
def test_two_servers_on_one_home_are_refused(tmp_path: Path) -> None:
    """The second says which process has it."""
    with only_server(tmp_path / "manent.db"):
        done = manent_process("serve", home=tmp_path, **SCRIPTED)
    assert (done.returncode, f"another Manent server (process {os.getpid()})" in done.stderr) == (1, True)


async def test_ports_that_are_taken_are_looked_at(home: Path) -> None:
    """By a Manent, whose health is told, or by something else."""
    async with running_server() as server:
        port = server.address.rpartition(":")[2]
        with socket.create_server(("127.0.0.1", 0)) as other:
            other_port = other.getsockname()[1]
            code, found = await asyncio.to_thread(examined, home, port=port, metrics_port=other_port)
    assert (code, found["port"]["verdict"]) == (0, "ok")
    assert found["port"]["detail"].endswith("is listened on by a Manent that is ready")
    assert found["metrics port"]["verdict"] == "warning"
    assert "no Manent answers there" in found["metrics port"]["detail"]


async def test_smoke_tries_everything_once() -> None:
    """Every step with its time; what there is nothing to try for is skipped."""
    async with running_server() as server:
        done = await asyncio.to_thread(manent, "smoke", server.address, "--json", home=Path(os.devnull))
    results = {line["step"]: line for line in map(json.loads, done.stdout.splitlines())}
    assert done.returncode == 0, results
    verdicts = {step: result["verdict"] for step, result in results.items()}
    assert verdicts.pop("embeddings") in {"passed", "skipped"}
    assert set(verdicts) == {"live", "ready", "models", "chat", "stream", "session", "events"}
    assert set(verdicts.values()) == {"passed"}
    assert all(result["seconds"] >= 0 for result in results.values())


async def test_smoke_tells_what_fails() -> None:
    """Exit code 1; the other steps are tried all the same."""
    failing = Script(failure=GenerationFailed("the device is lost"))
    async with running_server(failing) as server:
        done = await asyncio.to_thread(manent, "smoke", server.address, home=Path(os.devnull))
    assert done.returncode == 1
    assert "failed chat" in done.stdout
    assert "the device is lost" in done.stdout
    assert "passed models" in done.stdout


def test_smoke_of_nobody_is_unreachable(tmp_path: Path) -> None:
    """Exit code 3."""
    assert manent("smoke", "http://127.0.0.1:1", home=tmp_path).returncode == 3
