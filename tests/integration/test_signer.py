"""The signing key and the signer's memory, as files."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from manent.adapters.merkle.notes import Verifier
from manent.adapters.merkle.signer import FileSigner, KeyUnusable
from manent.adapters.store.checkpoints import MemoryCheckpoints
from manent.adapters.store.memory import MemoryEventStore
from manent.domain.errors import DomainError
from manent.domain.merkle import Frontier, leaf_hash
from manent.domain.records import EventContext
from manent.domain.transparency import CheckpointRefused, TreeHead
from manent.domain.usecases.issue_checkpoint import IssueCheckpoint
from tests.support.conversation import said
from tests.support.fakes import CountingIds, FakeClock

LOG = "log_1"
CONTEXT = EventContext(tenant="acme", actor="ann")


def head(size: int) -> TreeHead:
    """A tree of some leaves."""
    return TreeHead(size=size, root=Frontier().extended([leaf_hash(b"%d" % number) for number in range(size)]).root)


async def test_the_key_is_made_once_and_for_its_owner(tmp_path: Path) -> None:
    """The first start makes it with mode 0600; the next reads it; the verifier key lies beside it."""
    first = FileSigner(tmp_path / "keys", LOG)
    assert FileSigner(tmp_path / "keys", LOG).verifier == first.verifier
    assert (tmp_path / "keys" / "log-signing.key").stat().st_mode & 0o777 == 0o600
    assert Verifier.parse((tmp_path / "keys" / "log-signing.pub").read_text(encoding="utf-8")) == first.verifier
    assert sorted(path.name for path in (tmp_path / "keys").iterdir()) == [
        ".lock",
        "log-signing.key",
        "log-signing.pub",
    ]


async def test_what_was_signed_is_remembered_across_restarts(tmp_path: Path) -> None:
    """A smaller tree, another of the same size and a larger one without proof are refused by the next process too."""
    note = await FileSigner(tmp_path, LOG).sign(head(3), [])
    signer = FileSigner(tmp_path, LOG)
    assert (await signer.last(), signer.opened(note)) == (head(3), head(3))
    assert await signer.sign(head(3), []) == note
    for other in (head(2), TreeHead(size=3, root=head(2).root), head(4)):
        with pytest.raises(CheckpointRefused, match="old backup"):
            await signer.sign(other, [])
    assert await signer.last() == head(3)
    assert await FileSigner(tmp_path, "log_2").last() is None


@pytest.mark.parametrize(
    ("name", "content", "said_of_it"),
    [
        ("log-signing.key", b"nonsense", "no private key"),
        ("log_1.checkpoint", b"nonsense", "not what this key signed"),
        ("log_1.checkpoint", b"\xff\xfe", "not what this key signed"),
    ],
)
async def test_damaged_files_are_not_replaced(tmp_path: Path, name: str, content: bytes, said_of_it: str) -> None:
    """A key or memory that cannot be read is named, and never silently made anew."""
    await FileSigner(tmp_path, LOG).sign(head(3), [])
    (tmp_path / name).write_bytes(content)
    with pytest.raises(KeyUnusable, match=said_of_it):
        await FileSigner(tmp_path, LOG).sign(head(3), [])
    assert (tmp_path / name).read_bytes() == content


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    """It may have been copied; the message says what to do."""
    FileSigner(tmp_path, LOG)
    (tmp_path / "log-signing.key").chmod(0o644)
    with pytest.raises(KeyUnusable, match="chmod 600"):
        FileSigner(tmp_path, LOG)


@pytest.mark.parametrize("log_id", ["", "../log", "a/b", "a b", "x" * 81])
def test_an_identity_that_is_no_file_name_is_refused(tmp_path: Path, log_id: str) -> None:
    """The name comes from a database that may have been tampered with."""
    with pytest.raises(KeyUnusable, match="no identity"):
        FileSigner(tmp_path, log_id)


async def test_two_processes_sign_in_turns(tmp_path: Path) -> None:
    """Whoever signs behind the other's back does not make the other refuse a sound log."""
    store = MemoryEventStore(clock=FakeClock(), ids=CountingIds())
    both = [
        IssueCheckpoint(store=store, signer=FileSigner(tmp_path, LOG), kept=MemoryCheckpoints(LOG), clock=FakeClock())
        for _ in range(2)
    ]
    for version in range(20):
        await store.append("session-s", [said("user", "x")], expected_version=version, context=CONTEXT)
        issued = await asyncio.gather(*(one.run() for one in both), both[0].run())
        assert {one.size for one in issued} == {version + 1}


async def test_the_timer_tells_refusals_and_goes_on(tmp_path: Path) -> None:
    """A log that may not be signed is said to be so at each round, and the rounds do not end."""
    store, clock = MemoryEventStore(clock=FakeClock(), ids=CountingIds()), FakeClock()
    signer = FileSigner(tmp_path, LOG)
    await signer.sign(head(3), [])
    told: list[DomainError] = []
    issuing = IssueCheckpoint(store=store, signer=signer, kept=MemoryCheckpoints(LOG), clock=clock)
    timer = asyncio.create_task(issuing.run_every(300.0, failed=told.append))
    async with asyncio.timeout(5):
        while len(told) < 2:  # noqa: ASYNC110 (the timer sends no event)
            await asyncio.sleep(0.001)
    timer.cancel()
    assert isinstance(told[0], CheckpointRefused)
    assert set(clock.slept_s) == {300.0}
