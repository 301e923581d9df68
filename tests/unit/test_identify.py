"""API keys judged: what holds, what does not any more, who is let in without one, and how guesses are counted."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace

import pytest

from manent.adapters.auth.secret_file import AccessSecret
from manent.adapters.store.memory import MemoryEventStore
from manent.app.system import RandomIds
from manent.domain.access import LOCAL_OPERATOR, Scope
from manent.domain.access_errors import InvalidCredential, KeyIsRevoked, KeyNotFound, TooManyFailedLogins
from manent.domain.access_events import access_stream
from manent.domain.credentials import KEY_CHARS, KEY_PREFIX
from manent.domain.errors import InvalidValue, PermissionDenied, StoreUnavailable
from manent.domain.events import UnknownEvent
from manent.domain.limits import RequestLimits
from manent.domain.login_guard import ADDRESSES_MAX, LoginGuard
from manent.domain.records import EventContext, EventFilter, LogEntry
from manent.domain.usecases.identify import Anonymous
from manent.domain.usecases.key_table import KEYS_CORRELATION, KeyTable
from manent.domain.usecases.manage_keys import RotateKey
from tests.support.access import Door, admin, door, grant
from tests.support.fakes import FakeClock

HERE = "192.0.2.7"


async def refusal(at: Door, credential: str | None, address: str = HERE) -> str:
    """What is said to a credential that does not hold."""
    with pytest.raises(InvalidCredential) as raised:
        await at.identify.run(credential, address=address)
    return raised.value.message


async def test_a_key_tells_who_comes() -> None:
    """Tenant, subject, scopes, models and limits are those that it was made with."""
    at = door()
    limits = RequestLimits(requests_per_minute=5)
    issued = await at.key("shop", Scope.CHAT, models=("m",), default_model="m", limits=limits)
    who = await at.identify.run(issued.secret.text, address=HERE)
    assert (who.tenant, who.subject, who.scopes) == ("acme", "shop", frozenset({Scope.CHAT}))
    assert (who.credential_id, who.limits, who.models.allowed) == (issued.key.key_id, limits, ("m",))
    assert issued.secret.text.startswith(KEY_PREFIX)
    assert len(issued.secret.text) == KEY_CHARS


async def test_nothing_like_a_key_holds() -> None:
    """Another key, a cut or longer one, other cases, the digest itself, or nothing."""
    at = door()
    text = (await at.key("shop")).secret.text
    digest = at.secrets.digest(text)
    guesses = [
        text[:-1],
        text + "0",
        text + "0" * 10_000,
        text.upper(),
        KEY_PREFIX,
        KEY_PREFIX + digest,
        digest,
        KEY_PREFIX + "0" * 64,
        KEY_PREFIX + "\udcff" * 64,
        "x" * 100_000,
        "..",
        "",
    ]
    unlimited = door(store=at.store, clock=at.clock, guard=LoginGuard(failures_max=100))
    for guess in guesses:
        assert await refusal(unlimited, guess)
    assert "no API key was given" in await refusal(unlimited, None)


async def test_a_key_ends() -> None:
    """By its expiry, and by being revoked; and then nothing of it can be changed."""
    at = door()
    short = await at.key("shop", expires_at_us=at.clock.now_us() + 5_000_000)
    lost = await at.key("shop")
    await at.identify.run(short.secret.text, address=HERE)
    at.clock.advance(5)
    assert await refusal(at, short.secret.text) == "the API key has expired"
    await at.keys.revoke(admin(), lost.key.key_id, reason="lost")
    assert await refusal(at, lost.secret.text) == "the API key was revoked"
    again = await at.keys.revoke(admin(), lost.key.key_id, reason="again")
    assert again.reason == "lost"
    with pytest.raises(KeyIsRevoked):
        await at.keys.rotate(admin(), lost.key.key_id, RotateKey())


async def test_a_rotation_overlaps() -> None:
    """Both secrets hold for the overlap, then the new one alone; a second rotation ends the first at once."""
    at = door()
    first = await at.key("shop")
    second = await at.keys.rotate(admin(), first.key.key_id, RotateKey(overlap_s=60))
    assert second.secret.text != first.secret.text
    for issued in (first, second):
        assert (await at.identify.run(issued.secret.text, address=HERE)).credential_id == first.key.key_id
    at.clock.advance(60)
    assert await refusal(at, first.secret.text) == "the API key was replaced by a rotation"
    third = await at.keys.rotate(admin(), first.key.key_id, RotateKey(overlap_s=60))
    assert await refusal(at, first.secret.text) == "there is no such API key"
    for issued in (second, third):
        await at.identify.run(issued.secret.text, address=HERE)


async def test_another_servers_secret_knows_no_key() -> None:
    """A stolen database alone lets nobody in, and neither does a server with another secret."""
    at = door()
    text = (await at.key("shop")).secret.text
    other = door(store=at.store, clock=at.clock, secret=AccessSecret(b"another secret of thirty-two bytes"))
    assert await refusal(other, text) == "there is no such API key"


async def test_without_any_credential_everybody_is_the_operator() -> None:
    """Until there is a key, whatever is presented; then nobody, also once the last key was revoked."""
    at = door()
    for presented in (None, "none-needed-yet", KEY_PREFIX + "0" * 64):
        assert await at.identify.run(presented, address=HERE) == LOCAL_OPERATOR
    issued = await at.key("shop")
    assert "no API key" in await refusal(at, None)
    await at.keys.revoke(admin(), issued.key.key_id)
    assert "no API key" in await refusal(at, None)


async def test_settings_say_who_presents_nothing() -> None:
    """``none`` is closed before there is a key; ``local`` stays open to who presents nothing, not to wrong keys."""
    closed, opened = door(anonymous=Anonymous.NONE), door(anonymous=Anonymous.LOCAL)
    assert "no API key" in await refusal(closed, None)
    await opened.key("shop")
    assert await opened.identify.run(None, address=HERE) == LOCAL_OPERATOR
    assert await refusal(opened, "none-needed-yet")


async def test_another_servers_change_holds_within_the_bound() -> None:
    """A key that another server makes is known at once, and one that it revokes holds no longer than the bound."""
    at = door()
    other = door(store=at.store, clock=at.clock, fresh_s=0.15)
    text = (await at.key("shop")).secret.text
    issued = await at.key("shop")
    for secret in (text, issued.secret.text):
        await other.identify.run(secret, address=HERE)
    await at.keys.revoke(admin(), issued.key.key_id)
    await asyncio.sleep(0.2)
    assert await refusal(other, issued.secret.text) == "the API key was revoked"


class OutOfReach(MemoryEventStore):
    """A store whose database does not answer when it is told so."""

    is_out = False

    async def query(
        self, event_filter: EventFilter, *, after_position: int = 0, limit: int = 100, newest_first: bool = False
    ) -> list[LogEntry]:
        """Read, or refuse."""
        if self.is_out:
            raise StoreUnavailable("no database")
        return await super().query(event_filter, after_position=after_position, limit=limit, newest_first=newest_first)


async def test_keys_hold_only_for_a_while_without_the_database() -> None:
    """Who could have been revoked meanwhile is not let in for ever."""
    clock = FakeClock()
    store = OutOfReach(clock=clock, ids=RandomIds())
    at = door(store=store, clock=clock)
    digest = at.secrets.digest((await at.key("shop")).secret.text)
    table = KeyTable(store, fresh_s=0.01, stale_s_max=0.1)
    assert await table.find(digest)
    store.is_out = True
    await asyncio.sleep(0.02)
    assert await table.find(digest)
    await asyncio.sleep(0.15)
    with pytest.raises(StoreUnavailable):
        await table.find(digest)


async def test_a_key_whose_history_cannot_be_read_does_not_hold() -> None:
    """An event of a later version may have ended it."""
    at = door()
    issued = await at.key("shop")
    await at.identify.run(issued.secret.text, address=HERE)
    later = UnknownEvent(type="KeyFrozen", schema_version=1, payload={})
    context = EventContext(tenant="acme", actor="boss", correlation_id=KEYS_CORRELATION)
    await at.store.append(access_stream(issued.key.key_id), [later], expected_version=1, context=context)
    assert await refusal(at, issued.secret.text) == "there is no such API key"


async def test_only_administrators_manage_keys_and_only_their_tenants() -> None:
    """Others are refused; another tenant's keys do not exist, and none can be made for it."""
    at = door()
    issued = await at.key("shop")
    who = await at.identify.run(issued.secret.text, address=HERE)
    with pytest.raises(PermissionDenied):
        await at.keys.create(who, grant("shop"))
    with pytest.raises(PermissionDenied):
        await at.keys.get(who, issued.key.key_id)
    with pytest.raises(KeyNotFound):
        await at.keys.revoke(admin("other"), issued.key.key_id)
    with pytest.raises(InvalidValue):
        await at.keys.create(admin("other"), grant("shop"))
    assert await at.keys.list(admin("other")) == []


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"subject": "manent"}, "subject"),
        ({"subject": "a b"}, "subject"),
        ({"subject": ""}, "subject"),
        ({"name": "x" * 101}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"scopes": ("chat", "root")}, "scopes"),
        ({"scopes": ()}, "scopes"),
        ({"models": ("",)}, "models"),
        ({"fallback_models": ("m",) * 101}, "fallback_models"),
        ({"default_model": ""}, "default_model"),
        ({"expires_at_us": 1}, "expires_at"),
    ],
)
async def test_a_wrong_grant_is_refused(more: dict[str, object], param: str) -> None:
    """It says which part is wrong, and no key is made."""
    at = door()
    with pytest.raises(InvalidValue) as raised:
        await at.keys.create(admin(), replace(grant("shop"), **more))  # type: ignore[arg-type]  # wrong on purpose
    assert raised.value.param == param
    assert await at.keys.list(admin()) == []


async def test_guesses_are_limited_by_address(caplog: pytest.LogCaptureFixture) -> None:
    """Who guesses hears 429; a key that holds is let in all the same, and others are not concerned."""
    at = door(guard=LoginGuard(failures_max=3))
    text = (await at.key("shop")).secret.text
    guess = KEY_PREFIX + "5ec4e7" * 10
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            await refusal(at, guess)
        for _ in range(2):
            with pytest.raises(TooManyFailedLogins) as raised:
                await at.identify.run(guess, address=HERE)
    assert raised.value.retry_after_s
    await at.identify.run(text, address=HERE)
    await refusal(at, guess, address="192.0.2.8")
    assert len(caplog.records) == 4, "a flood does not fill the log"
    assert "5ec4e7" not in caplog.text
    assert at.identify.guard.failures == 6


def test_the_guard_forgets() -> None:
    """A window ends; memory is bounded, however many addresses there are; an IPv6 network is one subscriber."""
    guard = LoginGuard(failures_max=1, window_s=60)
    guard.failed(HERE, now_s=0)
    with pytest.raises(TooManyFailedLogins):
        guard.failed(HERE, now_s=59)
    guard.failed(HERE, now_s=60)
    guard.failed("2001:db8::1", now_s=60)
    with pytest.raises(TooManyFailedLogins):
        guard.failed("2001:db8::2", now_s=60)
    for number in range(2 * ADDRESSES_MAX):
        guard.failed(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", now_s=60)
    assert len(guard._windows) == ADDRESSES_MAX
