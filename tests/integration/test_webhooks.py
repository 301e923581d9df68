"""Webhooks against a real receiver: what is sent and when, what is tried again, what is never asked."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from standardwebhooks import Webhook as ReceiversLibrary
from standardwebhooks import WebhookVerificationError

from manent.adapters.store.codec import EVENT_TYPES
from manent.adapters.store.memory import MemoryEventStore
from manent.adapters.store.subscriptions import MemorySubscriptionStore
from manent.adapters.webhooks.secrets import FileWebhookSecrets, WebhookKeyUnusable
from manent.adapters.webhooks.sender import HttpWebhookSender
from manent.app.system import RandomIds, SystemClock
from manent.domain.access import Principal, Scope
from manent.domain.errors import InvalidValue, PermissionDenied
from manent.domain.records import EventContext, EventFilter
from manent.domain.usecases.dead_letters import DeadLetters
from manent.domain.usecases.deliver_webhooks import DeliverWebhooks, DeliveryLimits
from manent.domain.usecases.log_reader import LogReader, LogSignal
from manent.domain.usecases.manage_webhooks import ManageWebhooks, WebhookWish
from manent.domain.webhooks import (
    DeadLetterNotFound,
    DeliveryFailed,
    Webhook,
    WebhookNotFound,
    retry_after_s,
)
from tests.support.conversation import said
from tests.support.fakes import FakeClock
from tests.support.receiver import Receiver, receiving

ADMIN = Principal(tenant="acme", subject="ann", scopes=frozenset(Scope))
HOUR_S = 3600


@dataclass
class World:
    """A log, its webhooks, and servers that deliver them."""

    folder: Path
    clock: FakeClock | SystemClock = field(default_factory=FakeClock)
    timeout_s: float = 5.0
    limits: DeliveryLimits = field(default_factory=lambda: DeliveryLimits(standby_s=0.01, refresh_s=0.05))

    def __post_init__(self) -> None:
        ids = RandomIds()
        self.store = MemoryEventStore(clock=self.clock, ids=ids)
        self.subscriptions = MemorySubscriptionStore(clock=self.clock)
        self.sender = HttpWebhookSender("private", timeout_s=self.timeout_s)
        self.secrets = FileWebhookSecrets(self.folder)
        self.letters = DeadLetters(store=self.store, sender=self.sender, secrets=self.secrets, clock=self.clock)
        self.manage = ManageWebhooks(
            store=self.store,
            subscriptions=self.subscriptions,
            sender=self.sender,
            secrets=self.secrets,
            clock=self.clock,
            ids=ids,
            known_types=EVENT_TYPES,
        )

    @asynccontextmanager
    async def delivering(self) -> AsyncGenerator[None, None]:
        """A server that delivers, until the block ends."""
        signal = LogSignal()
        self.store.observe(signal.notify)
        deliver = DeliverWebhooks(
            store=self.store,
            subscriptions=self.subscriptions,
            reader=LogReader(self.store, signal, poll_s=0.02),
            letters=self.letters,
            clock=self.clock,
            ids=RandomIds(),
            limits=self.limits,
        )
        self.manage.observe(deliver.changed)
        task = asyncio.create_task(deliver.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def webhook(self, receiver: Receiver, **wish: object) -> tuple[Webhook, str]:
        """A webhook of Ann's to ``receiver``."""
        return await self.manage.create(ADMIN, WebhookWish(url=receiver.url, **wish))  # type: ignore[arg-type]  # by name

    async def say(self, *texts: str, tenant: str = "acme") -> list[int]:
        """Events in a session of its own; their positions."""
        events = [said("user", text) for text in texts]
        context = EventContext(tenant=tenant, actor="ann")
        stream_id = RandomIds().new("session-")
        appended = await self.store.append(stream_id, events, expected_version=0, context=context)
        return list(range(appended.position - len(texts) + 1, appended.position + 1))

    async def until(self, type_name: str, count: int = 1) -> None:
        """Return when the log has so many events of a type."""
        async with asyncio.timeout(10):
            while len(await self.store.query(EventFilter(type=type_name))) < count:  # noqa: ASYNC110 (the log sends no event)
                await asyncio.sleep(0.01)


async def test_a_receiver_verifies_what_it_is_sent(tmp_path: Path) -> None:
    """By the library that receivers use; one byte more or another secret, and it is refused."""
    world = World(tmp_path, clock=SystemClock())
    async with receiving() as receiver, world.delivering():
        _, secret = await world.webhook(receiver, content=True)
        (position,) = await world.say("hello")
        (message,) = await receiver.until(1)
    body = ReceiversLibrary(secret).verify(message.body, message.headers)
    (entry,) = await world.store.query(EventFilter(min_position=position, max_position=position))
    assert (body["type"], body["data"]["header"]["position"]) == ("MessageAppended", position)
    assert message.headers["webhook-id"] == entry.header.event_id
    assert message.body.count(entry.payload or b"none") == 1
    assert base64.b64decode(body["data"]["salt"]) == entry.salt
    for wrong, data in ((secret, message.body + b" "), ("whsec_" + base64.b64encode(bytes(32)).decode(), message.body)):
        with pytest.raises(WebhookVerificationError):
            ReceiversLibrary(wrong).verify(data, message.headers)


async def test_a_message_that_is_replayed_is_refused(tmp_path: Path) -> None:
    """Who took a message down cannot send it again: in time its id is known, and later its signed time is too old."""
    world = World(tmp_path, clock=FakeClock(time.time_ns() // 1000 - HOUR_S * 1_000_000))
    async with receiving() as receiver, world.delivering():
        _, secret = await world.webhook(receiver)
        await world.say("hello")
        (message,) = await receiver.until(1)
    with pytest.raises(WebhookVerificationError, match="too old"):
        ReceiversLibrary(secret).verify(message.body, message.headers)
    younger = {**message.headers, "webhook-timestamp": str(int(time.time()))}
    with pytest.raises(WebhookVerificationError, match="No matching signature"):
        ReceiversLibrary(secret).verify(message.body, younger)


async def test_content_is_sent_only_where_it_is_asked_for(tmp_path: Path) -> None:
    """Without, a message is the header: the canary is nowhere in it. What is too large is left out."""
    world = World(tmp_path)
    async with receiving() as plain, receiving() as full, world.delivering():
        await world.webhook(plain)
        await world.webhook(full, content=True)
        await world.say("canary", "x" * 300_000)
        for receiver in (plain, full):
            await receiver.until(2)
    assert b"canary" not in plain.taken[0].body
    assert b"canary" in full.taken[0].body
    assert [message.data["omitted"] for message in (*plain.taken, *full.taken)] == [
        "not_asked_for",
        "not_asked_for",
        None,
        "too_large",
    ]
    assert full.taken[1].data["payload"] is None


async def test_only_wanted_types_of_ones_own_tenant_are_sent(tmp_path: Path) -> None:
    """Neither another tenant's events, nor other types, nor events about webhooks, nor what was before."""
    world = World(tmp_path)
    await world.say("before")
    async with receiving() as typed, receiving() as every, world.delivering():
        await world.webhook(typed, events=("SessionStarted",))
        await world.webhook(every)
        await world.say("another's", tenant="other")
        (position,) = await world.say("mine")
        assert [message.position for message in await every.until(1)] == [position]
        assert typed.seen == []


async def test_a_receiver_that_fails_for_an_hour_loses_nothing(tmp_path: Path) -> None:
    """It gets every event in order once it is back, after few and ever rarer attempts."""
    clock = FakeClock()
    world = World(tmp_path, clock=clock)
    back_us = clock.now_us() + HOUR_S * 1_000_000

    class Recovering(Receiver):
        """Well again after an hour."""

        async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            """500 until then."""
            self.status = 500 if clock.now_us() < back_us else 204
            await super().answer(reader, writer)

    receiver = Recovering()
    server = await asyncio.start_server(receiver.answer, "127.0.0.1", 0)
    receiver.port = server.sockets[0].getsockname()[1]
    async with server:
        webhook, _ = await world.webhook(receiver)
        positions = await world.say("one", "two", "three")
        async with world.delivering():
            taken = await receiver.until(3)
    assert [message.position for message in taken] == positions
    assert 5 < len(receiver.seen) - 3 < world.limits.attempts_max
    assert len({message.headers["webhook-id"] for message in receiver.seen}) == 3
    assert await world.letters.page(ADMIN, webhook.webhook_id, after=0, limit=10) == ([], False)


async def test_what_is_never_taken_becomes_a_dead_letter(tmp_path: Path) -> None:
    """The next event has its turn; the letter can be read, and sent again once the receiver is well."""
    world = World(tmp_path, limits=DeliveryLimits(attempts_max=3))
    async with receiving(status=503) as receiver, world.delivering():
        webhook, _ = await world.webhook(receiver)
        first, second = await world.say("one", "two")
        await receiver.until_seen(6)
        await world.until("WebhookDeliveryAbandoned", 2)
        (letter,), more = await world.letters.page(ADMIN, webhook.webhook_id, after=first, limit=1)
        assert (letter.position, letter.attempts, more) == (second, 3, False)
        assert letter.reason == "the receiver answered 503"
        with pytest.raises(DeliveryFailed):
            await world.letters.redeliver(ADMIN, webhook.webhook_id, first)
        receiver.status = 200
        await world.letters.redeliver(ADMIN, webhook.webhook_id, first)
        assert [message.position for message in receiver.taken] == [first]
        (left,), _ = await world.letters.page(ADMIN, webhook.webhook_id, after=0, limit=10)
        assert left.position == second
        with pytest.raises(DeadLetterNotFound):
            await world.letters.redeliver(ADMIN, webhook.webhook_id, first)


async def test_a_receiver_that_is_gone_disables_its_webhook(tmp_path: Path) -> None:
    """410: recorded with its reason and no more tried; enabled again, it goes on where it ended."""
    world = World(tmp_path)
    async with receiving(status=410) as receiver, world.delivering():
        webhook, _ = await world.webhook(receiver)
        positions = await world.say("one", "two")
        await world.until("WebhookChanged")
        found, _ = await world.manage.get(ADMIN, webhook.webhook_id)
        assert (found.enabled, found.reason) == (False, "the receiver answered 410 Gone")
        await asyncio.sleep(0.1)
        assert len(receiver.seen) == 1
        receiver.status = 200
        changed = await world.manage.change(ADMIN, webhook.webhook_id, WebhookWish(enabled=True))
        assert changed == replace(webhook, enabled=True)
        assert [message.position for message in await receiver.until(2)] == positions


async def test_a_receiver_that_hangs_is_given_up(tmp_path: Path) -> None:
    """Each attempt within its time; another webhook does not wait for it."""
    world = World(tmp_path, timeout_s=0.5, limits=DeliveryLimits(attempts_max=2))
    async with receiving(hangs=True) as slow, receiving() as well, world.delivering():
        webhook, _ = await world.webhook(slow)
        await world.webhook(well)
        await world.say("one")
        await well.until(1)
        await world.until("WebhookDeliveryAbandoned")
        (letter,), _ = await world.letters.page(ADMIN, webhook.webhook_id, after=0, limit=10)
        assert letter.reason == "the receiver did not answer within 0.5 s"


async def test_redirects_are_not_followed(tmp_path: Path) -> None:
    """Neither to a private address nor anywhere else: the signed message is for one receiver."""
    world = World(tmp_path, limits=DeliveryLimits(attempts_max=1))
    async with receiving() as private, receiving(status=307, location=private.url) as receiver, world.delivering():
        webhook, _ = await world.webhook(receiver)
        await world.say("one")
        await world.until("WebhookDeliveryAbandoned")
        (letter,), _ = await world.letters.page(ADMIN, webhook.webhook_id, after=0, limit=10)
        assert "a redirect, which is not followed" in letter.reason
        assert private.seen == []


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.7", "169.254.169.254", "::1", "fd00::1", "::ffff:127.0.0.1"])
async def test_private_addresses_are_not_asked(address: str) -> None:
    """Whatever name leads there; of several addresses each must be public."""

    async def resolve(_host: str, _port: int) -> list[str]:
        return ["93.184.216.34", address]

    async with receiving() as receiver:
        sender = HttpWebhookSender("http", resolve=resolve)
        with pytest.raises(DeliveryFailed, match="not public"):
            await sender.send(f"http://rebound.test:{receiver.port}/hook", headers={}, body=b"{}")
        assert receiver.seen == []


@pytest.mark.parametrize(
    "url",
    ["http://a.example/", "ftp://a.example/", "https://ann:secret@a.example/", "https:///x", "no url", "https://a/#x"],
)
def test_addresses_that_are_not_allowed_are_refused_at_once(url: str) -> None:
    """The message says what would be right."""
    with pytest.raises(InvalidValue):
        HttpWebhookSender("https").check(url)


@pytest.mark.parametrize(
    "wish",
    [
        {"events": ("CompletionGeneratd",)},
        {"events": ("WebhookCreated",)},
        {"description": "x" * 501},
        {"url": "https://a.example/" + "x" * 2048},
    ],
)
async def test_webhooks_that_cannot_be_are_refused(tmp_path: Path, wish: dict[str, object]) -> None:
    """Nothing is recorded of them."""
    world = World(tmp_path)
    with pytest.raises(InvalidValue):
        await world.manage.create(ADMIN, WebhookWish(**{"url": "https://a.example/", **wish}))  # type: ignore[arg-type]  # by name
    assert await world.store.query(EventFilter()) == []


async def test_webhooks_are_their_tenants_administrators(tmp_path: Path) -> None:
    """Others are refused; another tenant's administrator finds nothing."""
    world = World(tmp_path)
    webhook, _ = await world.manage.create(ADMIN, WebhookWish(url="https://a.example/"))
    with pytest.raises(PermissionDenied):
        await world.manage.list_all(replace(ADMIN, scopes=frozenset(Scope) - {Scope.ADMIN}))
    stranger = replace(ADMIN, tenant="other")
    assert await world.manage.list_all(stranger) == []
    with pytest.raises(WebhookNotFound):
        await world.letters.page(stranger, webhook.webhook_id, after=0, limit=1)


async def test_of_two_servers_one_delivers(tmp_path: Path) -> None:
    """Each event comes once; when one ends, the other goes on from what was taken last, which may come again."""
    world = World(tmp_path, clock=SystemClock())
    async with receiving() as receiver, world.delivering():
        webhook, _ = await world.webhook(receiver)
        async with world.delivering():
            positions = await world.say(*map(str, range(20)))
            await receiver.until(20)
        positions += await world.say("later")
        await receiver.until(21)
        await asyncio.sleep(0.05)
        came = [message.position for message in receiver.taken]
        assert came in (positions, [*positions[:-1], *positions[-2:]])
        assert (await world.manage.get(ADMIN, webhook.webhook_id))[1] >= positions[-2]


async def test_a_removed_webhook_is_sent_nothing(tmp_path: Path) -> None:
    """Neither what is recorded later nor what it did not take yet."""
    world = World(tmp_path, clock=SystemClock())
    async with receiving(status=500) as receiver, world.delivering():
        webhook, _ = await world.webhook(receiver)
        await world.say("one")
        await receiver.until_seen(1)
        await world.manage.delete(ADMIN, webhook.webhook_id)
        await world.say("two")
        await asyncio.sleep(0.2)
        assert len(receiver.seen) == 1
        assert await world.manage.list_all(ADMIN) == []


async def test_a_rotated_secret_signs_beside_the_old_one_for_a_day(tmp_path: Path) -> None:
    """Receivers verify by either, then by the new one alone; a lost key is overcome by a rotation as well."""
    clock = FakeClock(time.time_ns() // 1000 - 12 * HOUR_S * 1_000_000)
    world = World(tmp_path / "keys", clock=clock)
    async with receiving() as receiver:
        webhook, old = await world.webhook(receiver)
        rotated, new = await world.manage.rotate(ADMIN, webhook.webhook_id)
        await world.say("one")
        (entry,) = await world.store.query(EventFilter(type="MessageAppended"))
        clock.advance(12 * HOUR_S)
        await world.letters.send(entry, rotated)
        clock.advance(12 * HOUR_S + 1)
        await world.letters.send(entry, rotated)
        during, after = receiver.taken
        for secret in (old, new):
            assert ReceiversLibrary(secret).verify(during.body, during.headers)
        assert (during.headers["webhook-signature"].count("v1,"), after.headers["webhook-signature"].count("v1,")) == (
            2,
            1,
        )
        (tmp_path / "keys" / "webhooks.key").write_bytes(b"k" * 32)
        other = World(tmp_path / "keys", clock=clock)
        with pytest.raises(DeliveryFailed, match="rotate the secret"):
            await other.letters.send(entry, rotated)
        other.manage = ManageWebhooks(
            store=world.store,
            subscriptions=world.subscriptions,
            sender=world.sender,
            secrets=other.secrets,
            clock=clock,
            ids=RandomIds(),
            known_types=EVENT_TYPES,
        )
        mended, _ = await other.manage.rotate(ADMIN, webhook.webhook_id)
        await other.letters.send(entry, mended)
        assert receiver.taken[-1].headers["webhook-signature"].count("v1,") == 1


async def test_the_log_has_no_secret(tmp_path: Path) -> None:
    """A secret is derived from a key outside the log; with another key nothing is signed at all."""
    world = World(tmp_path / "keys")
    webhook, secret = await world.manage.create(ADMIN, WebhookWish(url="https://a.example/"))
    log = json.dumps([(entry.payload or b"").decode() for entry in await world.store.query(EventFilter())])
    assert secret.removeprefix("whsec_") not in log
    assert FileWebhookSecrets(tmp_path / "keys").key_id == webhook.secret_key_id
    other = World(tmp_path / "others")
    await world.say("one")
    (entry,) = await world.store.query(EventFilter(type="MessageAppended"))
    with pytest.raises(DeliveryFailed, match="another key"):
        await other.letters.send(entry, webhook)


@pytest.mark.parametrize(("content", "mode", "match"), [(b"short", 0o600, "5 bytes"), (bytes(32), 0o644, "chmod 600")])
def test_a_key_that_cannot_be_used_is_named(tmp_path: Path, content: bytes, mode: int, match: str) -> None:
    """Cut off, or readable by others."""
    file = tmp_path / "webhooks.key"
    file.write_bytes(content)
    file.chmod(mode)
    with pytest.raises(WebhookKeyUnusable, match=match):
        _ = FileWebhookSecrets(tmp_path).key_id


def test_waits_grow_to_an_hour_and_are_spread() -> None:
    """Ten attempts take about four hours; no two receivers are asked at the same time for long."""
    waits = [retry_after_s(failures, 0.5) for failures in range(1, 10)]
    assert waits == sorted(waits)
    assert (waits[0], waits[-1]) == (5.0, 3600.0)
    assert 3 * HOUR_S < sum(waits) < 5 * HOUR_S
    assert [round(retry_after_s(1, chance), 6) for chance in (0.0, 1.0)] == [4.0, 6.0]
