"""``manent keys`` in the database and through a server; how commands say who they are; where a server may listen."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from manent.adapters.auth.secret_file import AccessSecret
from manent.adapters.store.memory import MemoryEventStore
from manent.app.identity import NotOpenable, check_opening, identity
from manent.app.settings import Settings, SettingsError, load_settings
from manent.app.system import RandomIds
from manent.domain.access import Scope
from tests.support.access import admin, door, grant, guarded_server
from tests.support.commands import manent
from tests.support.fakes import FakeClock

JWT = {"jwt_issuer": "i", "jwt_audience": "a"}


def told(done: CompletedProcess[str]) -> dict[str, Any]:
    """The one object that a command printed."""
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_the_life_of_a_key(tmp_path: Path) -> None:
    """Also the first one, before any server ran; its secret is printed when it is made or rotated, never again."""
    home = tmp_path / "home"
    made = manent("keys", "create", "web shop", "--subject", "shop", "--tenant", "acme", "--model", "m", home=home)
    assert made.returncode == 0, made.stderr
    secret = made.stdout.split()[0]
    assert (home / "keys" / "access.key").stat().st_mode & 0o077 == 0
    (key,) = [json.loads(line) for line in manent("keys", "list", "--json", home=home).stdout.splitlines()]
    assert secret.startswith(key["shown"])
    assert (key["tenant"], key["subject"], key["models"]) == ("acme", "shop", ["m"])
    rotated = told(manent("keys", "rotate", key["id"], "--overlap-hours", "1", "--json", home=home))
    assert rotated["key"] != secret
    shown = manent("keys", "show", key["id"], home=home)
    assert key["id"] in shown.stdout
    revoked = told(manent("keys", "revoke", key["id"], "--reason", "lost", "--json", home=home))
    assert (revoked["status"], revoked["revoked_by"]) == ("revoked", "local")
    listed = manent("keys", "list", home=home)
    for silent in (shown.stdout, listed.stdout, manent("events", "--json", home=home).stdout):
        assert secret not in silent
        assert rotated["key"] not in silent


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a key."""
    folder = tmp_path_factory.mktemp("home")
    told(manent("keys", "create", "first", "--subject", "first", "--json", home=folder))
    return folder


@pytest.mark.parametrize(
    ("arguments", "code", "why"),
    [
        (("keys", "show", "key_none"), 1, "no key"),
        (("keys", "create", "x", "--subject", "a b"), 2, "subject"),
        (("keys", "create", "x", "--subject", "a", "--scope", "root"), 2, "root"),
        (("--api-key", "mnt_visible", "models", "ps"), 2, "ps"),
        (("--api-key", "@none", "models", "ps"), 2, "none"),
    ],
)
def test_what_is_wrong_is_said(home: Path, arguments: tuple[str, ...], code: int, why: str) -> None:
    """With the exit code that fits; a key on the command line is refused, and not repeated."""
    done = manent(*arguments, home=home)
    assert done.returncode == code, done.stderr
    assert why in done.stderr
    assert "mnt_visible" not in done.stderr


async def test_commands_say_who_they_are(tmp_path: Path) -> None:
    """By the environment or a file; on the server's machine by its secret; and with none, or a wrong one, 401."""
    at = door(secret=AccessSecret.of_folder(tmp_path / "keys"))
    boss = (await at.key("boss", Scope.ADMIN)).secret.text
    (tmp_path / "boss.key").write_text(boss + "\n", encoding="utf-8")
    async with guarded_server(at) as running:

        async def run(*arguments: str, **settings: object) -> CompletedProcess[str]:
            return await asyncio.to_thread(manent, *arguments, home=tmp_path, **settings)

        url = ("--url", running.address)
        listed = await run("keys", "list", "--json", *url, api_key=boss)
        assert json.loads(listed.stdout)["name"] == "boss's"
        by_file = await run("--api-key", f"@{tmp_path / 'boss.key'}", "keys", "create", "x", "--subject", "x", *url)
        assert by_file.stdout.startswith("mnt_"), by_file.stderr
        refused = await run("keys", "list", *url, api_key="mnt_wrong")
        assert refused.returncode == 1
        assert "no such API key" in refused.stderr
        unknown = await run("keys", "list", *url)
        assert "no API key was given" in unknown.stderr
        own = await run("models", "ps", port=running.port)
        assert own.returncode == 0, own.stderr


def settings(home: Path, **members: Any) -> Settings:
    """Settings of a server."""
    return Settings(home=home, _env_file=None, **members)


async def opening(home: Path, *, keys: str = "", **members: Any) -> str:
    """What a server would say of who may come; ``keys`` is none, ``revoked``, ``foreign`` or ``active``."""
    clock, ids = FakeClock(), RandomIds()
    store = MemoryEventStore(clock=clock, ids=ids)
    given = settings(home, **members)
    made = await identity(given, store, clock=clock, ids=ids)
    if keys:
        maker = door(store=store, clock=clock).keys if keys == "foreign" else made.keys
        issued = await maker.create(admin(), grant("shop"))
        if keys == "revoked":
            await maker.revoke(admin(), issued.key.key_id)
    return await check_opening(given, made, now_us=clock.now_us())


HS256 = {"jwt_algorithm": "HS256", "jwt_secret": "0123456789abcdef0123456789abcdef", **JWT}


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ({}, "its operator"),
        ({"keys": "active"}, "hold: 1"),
        ({"keys": "revoked"}, "hold: 0"),
        ({"anonymous": "local", "keys": "active"}, "MANENT_ANONYMOUS=local"),
        ({"host": "0.0.0.0", "keys": "active"}, "hold: 1"),  # noqa: S104 (nothing listens)
        ({"host": "::", **HS256}, "JWTs of i"),
    ],
)
async def test_where_a_server_listens(tmp_path: Path, members: dict[str, Any], says: str) -> None:
    """On loopback always, elsewhere with a credential to come with; and it says who may come."""
    assert says in await opening(tmp_path, **members)


@pytest.mark.parametrize(
    ("members", "why"),
    [
        ({}, "manent keys create"),
        ({"keys": "revoked"}, "manent keys create"),
        ({"keys": "foreign"}, "manent keys create"),
        ({"keys": "active", "anonymous": "local"}, "loopback"),
    ],
)
async def test_where_it_does_not(tmp_path: Path, members: dict[str, Any], why: str) -> None:
    """On another address, when nobody could prove who asks, or everybody would be the operator."""
    with pytest.raises(NotOpenable, match=why):
        await opening(tmp_path, host="0.0.0.0", **members)  # noqa: S104 (nothing listens)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"JWT_ALGORITHM": "none"}, "HS256"),
        ({"JWT_ALGORITHM": "HS256", "JWT_SECRET": "hunter2", "JWT_ISSUER": "i", "JWT_AUDIENCE": "a"}, "32 random"),
        ({"JWT_ALGORITHM": "HS256", "JWT_SECRET": "ab" * 20, "JWT_ISSUER": "i", "JWT_AUDIENCE": "a"}, "32 random"),
        ({"JWT_ALGORITHM": "HS256"}, "MANENT_JWT_SECRET"),
        ({"JWT_ALGORITHM": "RS256", "JWT_JWKS": "keys.json"}, "MANENT_JWT_ISSUER, MANENT_JWT_AUDIENCE"),
        ({"JWT_JWKS": "keys.json"}, "MANENT_JWT_ALGORITHM"),
        ({"JWT_JWKS": "http://issuer.example/jwks"}, "https"),
        ({"JWT_JWKS": "https://user:hunter2@issuer.example/jwks"}, "https"),
        ({"PUBLIC": "docs,events"}, "events"),
        ({"HOST": "example.com"}, "IP address"),
    ],
)
def test_wrong_settings_are_named(given: dict[str, str], why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what would be right, and without the secret."""
    for name, value in given.items():
        monkeypatch.setenv(f"MANENT_{name}", value)
    with pytest.raises(SettingsError, match=why) as raised:
        load_settings()
    assert "hunter2" not in str(raised.value)
    assert "abab" not in str(raised.value)
