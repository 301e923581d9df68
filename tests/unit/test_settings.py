"""Settings that are wrong are named, with what would be right."""

from __future__ import annotations

import pytest

from manent.app.settings import Settings, SettingsError, load_settings

DATABASE = "postgresql+asyncpg://ann:secret@db.example/manent"


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("", ""),
        ("?sslmode=require", "?ssl=require"),
        ("?ssl=verify-full", "?ssl=verify-full"),
        ("?host=/run/postgresql&port=5433", "?host=%2Frun%2Fpostgresql&port=5433"),
    ],
)
def test_options_of_a_database_url(given: str, taken: str) -> None:
    """TLS and sockets, also as libpq writes them."""
    assert Settings(database_url=DATABASE + given).database_url == DATABASE + taken


@pytest.mark.parametrize("query", ["?ssl=no", "?sslmode=", "?pool_size=5"])
def test_other_options_are_refused(query: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver would raise a TypeError at the first connection: the message says which options there are."""
    monkeypatch.setenv("MANENT_DATABASE_URL", DATABASE + query)
    with pytest.raises(SettingsError, match="verify-full") as raised:
        load_settings()
    assert "secret" not in str(raised.value)


def test_parts_of_the_settings_do_not_hide_each_others_checks() -> None:
    """Pydantic knows validators by name: of two with one name in two bases, only one would run."""
    found: list[str] = []
    for base in Settings.__bases__:
        checks = vars(base)["__pydantic_decorators__"]
        found += [*checks.field_validators, *checks.model_validators]
    assert len(found) == len(set(found)) > 10
