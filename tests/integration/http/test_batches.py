"""Batches as OpenAI's own client knows them, over a scripted engine."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio
from openai import AsyncOpenAI, BadRequestError, ConflictError, NotFoundError

from manent.adapters.http.batch_lines import HttpBatchRequests
from manent.adapters.http.context import HttpLimits
from manent.adapters.inference.admission import AdmissionLimits
from manent.adapters.inference.script import Script
from manent.adapters.inference.scripted import ScriptedEngine
from manent.adapters.store.subscriptions import MemorySubscriptionStore
from manent.app.system import SystemClock
from manent.domain.access import LOCAL_OPERATOR, Scope
from manent.domain.batch_work import Line
from manent.domain.embedding import ModelType
from tests.support.access import admin, bearer, door, guarded_server
from tests.support.batches import CHAT, answers, begun, ended, jsonl, line, working
from tests.support.fakes import FakeClock
from tests.support.http import Running, running_server

in_module = pytest.mark.asyncio(loop_scope="module")


def leases() -> MemorySubscriptionStore:
    """Leases of nobody."""
    return MemorySubscriptionStore(clock=SystemClock())


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running() -> AsyncGenerator[Running, None]:
    """A server that works batches off."""
    async with running_server(Script(pieces=("Hello", " there"))) as running, working(running, leases()):
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(running: Running) -> AsyncGenerator[AsyncOpenAI, None]:
    """The official client."""
    async with running.openai() as client:
        yield client


@in_module
async def test_from_upload_to_download(client: AsyncOpenAI, running: Running) -> None:
    """Every line is answered, by its custom_id, as the server answers the same request; the log tells them apart."""
    batch = await begun(client, [line("a"), line("b", "and you?"), line("c", max_tokens=1)], metadata={"for": "me"})
    assert (batch.status, batch.metadata, batch.endpoint) == ("validating", {"for": "me"}, CHAT)
    batch = await ended(client, batch)
    assert (batch.status, batch.errors, batch.error_file_id) == ("completed", None, None)
    assert batch.request_counts is not None
    assert batch.request_counts.to_dict() == {"total": 3, "completed": 3, "failed": 0}
    assert None not in (batch.in_progress_at, batch.finalizing_at, batch.completed_at, batch.expires_at)
    assert batch.output_file_id is not None
    file = await client.files.retrieve(batch.output_file_id)
    assert (file.purpose, file.filename) == ("batch_output", f"{batch.id}_output.jsonl")
    found = {answer["custom_id"]: answer for answer in await answers(client, batch.output_file_id)}
    assert found.keys() == {"a", "b", "c"}
    assert (found["a"]["error"], found["a"]["response"]["status_code"]) == (None, 200)
    assert found["a"]["response"]["body"]["choices"][0]["message"]["content"] == "Hello there"
    assert found["c"]["response"]["body"]["choices"][0]["finish_reason"] == "length"
    requests = {entry.header.request_id for entry in await running.log("CompletionRequested")}
    assert {answer["response"]["request_id"] for answer in found.values()} <= requests


@in_module
@pytest.mark.parametrize(
    ("url", "body", "kind"),
    [
        ("/v1/completions", {"prompt": ["once", "upon"]}, "text_completion"),
        ("/v1/responses", {"input": "hello"}, "response"),
    ],
)
async def test_other_endpoints(client: AsyncOpenAI, url: str, body: dict[str, Any], kind: str) -> None:
    """A line has the body of its endpoint, and its answer the endpoint's form."""
    batch = await ended(client, await begun(client, [line("a", url=url, **body)], url))
    (answer,) = await answers(client, batch.output_file_id)
    assert answer["response"]["body"]["object"] == kind


async def test_embeddings() -> None:
    """Vectors come as numbers, and a line for a chat model is its own error."""
    cards = ScriptedEngine().models()
    embedder = replace(cards[0], model_id="vectors", aliases=(), type=ModelType.EMBEDDING)
    async with (
        running_server(engine=ScriptedEngine(cards=(*cards, embedder))) as running,
        working(running, leases()),
        running.openai() as client,
    ):
        url = "/v1/embeddings"
        lines = [line("a", url=url, model="vectors", input="x"), line("b", url=url, input="x")]
        batch = await ended(client, await begun(client, lines, url))
        (answer,) = await answers(client, batch.output_file_id)
        assert len(answer["response"]["body"]["data"][0]["embedding"]) > 1
        (failure,) = await answers(client, batch.error_file_id)
        assert failure["response"]["body"]["error"]["code"] == "wrong_model_type"


@in_module
async def test_what_fails_when_it_is_tried_is_in_the_error_file(client: AsyncOpenAI) -> None:
    """A line's own mistake ends that line alone; the counts tell them apart."""
    batch = await ended(client, await begun(client, [line("good"), line("bad", temperature=9)]))
    assert batch.status == "completed"
    assert batch.request_counts is not None
    assert batch.request_counts.to_dict() == {"total": 2, "completed": 1, "failed": 1}
    (failure,) = await answers(client, batch.error_file_id)
    assert (failure["custom_id"], failure["response"]["status_code"], failure["error"]) == ("bad", 400, None)
    assert failure["response"]["body"]["error"]["param"] == "temperature"
    assert [answer["custom_id"] for answer in await answers(client, batch.output_file_id)] == ["good"]


BROKEN: dict[str, tuple[dict[str, Any] | bytes, str]] = {
    "no json": (b"{", "invalid_json_line"),
    "no object": (b"[1]", "invalid_json_line"),
    "no utf-8": (b'{"custom_id": "\xff"}', "invalid_json_line"),
    "a key twice": (b'{"custom_id": "a", "custom_id": "b"}', "invalid_json_line"),
    "nested as deep as can just be read": (
        b'{"custom_id": "n", "body": ' + b"[" * 900 + b"]" * 900 + b"}",
        "invalid_json_line",
    ),
    "no custom_id": ({"method": "POST", "url": CHAT, "body": {}}, "missing_required_parameter"),
    "custom_id is a number": ({**line("x"), "custom_id": 7}, "invalid_custom_id"),
    "custom_id twice": (line("first"), "duplicate_custom_id"),
    "method": ({**line("x"), "method": "GET"}, "invalid_method"),
    "another endpoint": (line("x", url="/v1/completions", prompt="y"), "mismatched_url"),
    "no body": ({"custom_id": "x", "method": "POST", "url": CHAT}, "invalid_body"),
    "one member more": ({**line("x"), "headers": {}}, "unknown_parameter"),
    "unknown model": (line("x", model="nobody"), "model_not_found"),
    "no model": (line("x", model=None), "missing_required_parameter"),
    "a stream": (line("x", stream=True), "unsupported_parameter"),
    "alone": (line("x", deterministic=True), "unsupported_parameter"),
}


@in_module
async def test_all_broken_lines_are_told(client: AsyncOpenAI, running: Running) -> None:
    """A broken file fails its batch before anything is tried, with every mistake, its line and its code."""
    before = len(await running.log("CompletionRequested"))
    lines = [line("first"), *(broken for broken, _ in BROKEN.values()), b"", b"  "]
    batch = await ended(client, await begun(client, lines))
    assert batch.status == "failed"
    assert batch.failed_at is not None
    assert batch.errors is not None
    assert batch.errors.data is not None
    told = [(mistake.line, mistake.code) for mistake in batch.errors.data]
    assert told == [(number, code) for number, (_, code) in enumerate(BROKEN.values(), start=2)]
    assert (batch.output_file_id, len(await running.log("CompletionRequested"))) == (None, before)


@in_module
async def test_mistakes_are_told_up_to_a_bound(client: AsyncOpenAI) -> None:
    """A file that is something else altogether is not told line by line."""
    batch = await ended(client, await begun(client, b"nonsense\n" * 1000))
    assert batch.errors is not None
    assert batch.errors.data is not None
    assert len(batch.errors.data) == 100
    blank = await ended(client, await begun(client, b"\n \n"))
    assert [mistake.code for mistake in (blank.errors and blank.errors.data) or ()] == ["empty_file"]


@in_module
@pytest.mark.timeout(60)
async def test_more_lines_than_may_be(client: AsyncOpenAI) -> None:
    """The line behind the last one that may be is named, and nothing is tried."""
    batch = await ended(client, await begun(client, [line(str(number)) for number in range(50_001)]), wait_s=50)
    assert [mistake.code for mistake in (batch.errors and batch.errors.data) or ()] == ["too_many_requests"]


@in_module
async def test_what_cannot_be_a_batch(client: AsyncOpenAI) -> None:
    """An endpoint without batches, another window, no such file, a file for something else: told by name."""
    file = await client.files.create(file=("in.jsonl", b"{}"), purpose="batch")
    wishes: list[tuple[dict[str, Any], str]] = [
        ({"endpoint": "/v1/moderations"}, "endpoint"),
        ({"completion_window": "1h"}, "completion_window"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 1}}, "output_expires_after.seconds"),
    ]
    for wish, param in wishes:
        good = {"input_file_id": file.id, "endpoint": CHAT, "completion_window": "24h"}
        with pytest.raises(BadRequestError) as refused:
            await client.batches.create(**{**good, **wish})
        assert refused.value.param == param
    with pytest.raises(NotFoundError):
        await client.batches.create(input_file_id="file-nobody", endpoint=CHAT, completion_window="24h")
    output = (await ended(client, await begun(client, [line("a")]))).output_file_id
    assert output is not None
    with pytest.raises(BadRequestError, match="batch_output"):
        await client.batches.create(input_file_id=output, endpoint=CHAT, completion_window="24h")
    with pytest.raises(NotFoundError):
        await client.batches.retrieve("batch_nobody")


@in_module
async def test_pages_of_batches(client: AsyncOpenAI) -> None:
    """The newest first; the client follows the pages by itself."""
    made = [(await begun(client, [line("a")])).id for _ in range(3)]
    page = await client.batches.list(limit=2)
    assert [batch.id for batch in page.data] == made[:0:-1]
    assert page.has_more
    following = await client.batches.list(limit=1, after=made[1])
    assert [batch.id for batch in following.data] == made[:1]
    seen = [batch.id async for batch in client.batches.list(limit=1)]
    assert seen[:3] == made[::-1]
    with pytest.raises(BadRequestError):
        await client.batches.list(after="batch_nobody")


class Gate:
    """Holds every answer at its first word until it is opened."""

    def __init__(self) -> None:
        self.opened = asyncio.Event()
        self.waiting = 0

    async def __call__(self, delta: int) -> None:
        """See ``Script.before_delta``."""
        if delta == 0:
            self.waiting += 1
            await self.opened.wait()

    async def held(self, count: int) -> None:
        """Return once so many answers wait."""
        async with asyncio.timeout(10):
            while self.waiting < count:  # noqa: ASYNC110 (the script tells nobody)
                await asyncio.sleep(0.005)


async def test_a_cancel_keeps_what_is_answered() -> None:
    """What is under way ends, nothing else begins, and what was answered before can be read."""
    gate = Gate()

    def script(request: Any) -> Script:
        return Script(before_delta=gate) if gate.opened.is_set() or request.parameters.max_tokens == 7 else Script()

    async with (
        running_server(engine=ScriptedEngine(script)) as running,
        working(running, leases(), batch_lines_max=2),
        running.openai() as client,
    ):
        batch = await begun(client, [line("quick"), *(line(f"slow{n}", max_tokens=7) for n in range(5))])
        await gate.held(1)
        cancelled = await client.batches.cancel(batch.id)
        assert (cancelled.status, cancelled.cancelling_at is not None) == ("cancelling", True)
        assert (await client.batches.cancel(batch.id)).status in {"cancelling", "cancelled"}
        batch = await ended(client, batch)
        assert (batch.status, batch.cancelled_at is not None) == ("cancelled", True)
        assert [answer["custom_id"] for answer in await answers(client, batch.output_file_id)] == ["quick"]
        assert len(await running.log("CompletionRequested")) <= 3
        with pytest.raises(ConflictError):
            await client.batches.cancel((await ended(client, await begun(client, [line("a")]))).id)


async def test_a_batch_that_waits_for_a_worker_is_cancelled_at_once() -> None:
    """Nothing was begun that would have to end: it does not wait for its turn to be called off."""
    async with running_server() as running, running.openai() as client:
        batch = await client.batches.cancel((await begun(client, [line("a")])).id)
        assert (batch.status, batch.output_file_id) == ("cancelled", None)
        assert None not in (batch.cancelling_at, batch.cancelled_at)
        async with working(running, leases()):
            await ended(client, await begun(client, [line("b")]))
        assert len(await running.log("BatchTaken")) == 1


@pytest.mark.parametrize("after", range(0, 36, 9))
async def test_a_cancel_that_races_the_end(after: int) -> None:
    """Whenever the cancel comes, the batch has one end, and every line that was counted stands in a file, once."""
    async with running_server() as running, working(running, leases()), running.openai() as client:
        batch = await begun(client, [line(str(number)) for number in range(8)])
        for _ in range(after):
            await asyncio.sleep(0.002)
        try:
            await client.batches.cancel(batch.id)
        except ConflictError:
            assert (await client.batches.retrieve(batch.id)).status in {"finalizing", "completed"}
        batch = await ended(client, batch)
        assert batch.status in {"cancelled", "completed"}
        assert batch.request_counts is not None
        found = Counter(answer["custom_id"] for answer in await answers(client, batch.output_file_id))
        assert found.total() == len(found) == batch.request_counts.completed
        assert len(await running.log("BatchEnded")) == 1


async def test_who_waits_for_an_answer_goes_before_a_batch() -> None:
    """With one place at the model, a chat gets it before the lines that asked for it earlier."""
    gate = Gate()
    engine = ScriptedEngine(Script(before_delta=gate), limits=AdmissionLimits(running_max=1, in_flight_max=9))
    async with running_server(engine=engine) as running, working(running, leases()), running.openai() as client:
        batch = await begun(client, [line(f"b{number}", f"line {number}") for number in range(4)])
        await gate.held(1)
        chats = [asyncio.create_task(running.chat(messages=[{"role": "user", "content": "now"}])) for _ in range(2)]
        admission = engine.admission["scripted"]
        async with asyncio.timeout(10):
            while admission.waiting < 5:  # noqa: ASYNC110 (two chats, three lines)
                await asyncio.sleep(0.005)
        gate.opened.set()
        assert [(await chat).status_code for chat in chats] == [200, 200]
        assert (await ended(client, batch)).status == "completed"
    asked = [messages[-1].text for messages in engine.rendered]
    assert asked[1:3] == ["now", "now"]


async def test_a_full_queue_is_waited_for() -> None:
    """A line that finds no room is tried again, and is not failed by that."""
    engine = ScriptedEngine(limits=AdmissionLimits(running_max=1, in_flight_max=1, wait_max_s=0.05))
    async with running_server(engine=engine) as running, working(running, leases()), running.openai() as client:
        batch = await begun(client, [line("a"), line("b")])
        async with engine.place("scripted"):
            await asyncio.sleep(0.2)
        batch = await ended(client, batch)
        assert {answer["custom_id"] for answer in await answers(client, batch.output_file_id)} == {"a", "b"}


async def test_what_is_left_when_the_window_closes() -> None:
    """After a day the rest is told to have expired, and what was answered is kept."""
    gate, clock = Gate(), FakeClock()

    def script(request: Any) -> Script:
        return Script(before_delta=gate) if request.parameters.max_tokens == 7 else Script()

    async with (
        running_server(engine=ScriptedEngine(script), clock=clock) as running,
        working(running, leases(), batch_lines_max=1),
        running.openai() as client,
    ):
        batch = await begun(client, [line("quick"), *(line(f"slow{n}", max_tokens=7) for n in range(2))])
        await gate.held(1)
        clock.advance(24 * 3600)
        batch = await ended(client, batch)
        assert (batch.status, batch.expired_at is not None) == ("expired", True)
        assert [answer["custom_id"] for answer in await answers(client, batch.output_file_id)] == ["quick"]
        left = await answers(client, batch.error_file_id)
        assert {one["custom_id"]: one["error"]["code"] for one in left} == dict.fromkeys(
            ("slow0", "slow1"), "batch_expired"
        )


async def test_an_input_that_is_deleted_meanwhile_fails_its_batch() -> None:
    """What was answered until then can be read."""
    gate = Gate()
    async with (
        running_server(engine=ScriptedEngine(Script(before_delta=gate))) as running,
        running.openai() as client,
    ):
        store = leases()
        async with working(running, store, batch_lines_max=1):
            batch = await begun(client, [line("a"), line("b")])
            await gate.held(1)
        await client.files.delete(batch.input_file_id)
        gate.opened.set()
        async with working(running, store):
            batch = await ended(client, batch)
        assert batch.status == "failed"
        assert [mistake.code for mistake in (batch.errors and batch.errors.data) or ()] == ["file_not_found"]


async def test_a_batch_is_its_makers_alone_and_ends_with_their_key() -> None:
    """Nobody else sees file or batch, not even an administrator; lines behind a revocation are refused."""
    at, gate = door(), Gate()
    ann, bob = await at.key("ann"), await at.key("bob")
    async with guarded_server(at, engine=ScriptedEngine(Script(before_delta=gate))) as running:
        async with (
            running.openai() as client,
            working(running, leases(), keys=at.table, batch_lines_max=1),
        ):
            keys = {name: client.with_options(api_key=key.secret.text) for name, key in (("ann", ann), ("bob", bob))}
            batch = await begun(keys["ann"], [line("a"), line("b")])
            await gate.held(1)
            for ask in (
                keys["bob"].batches.retrieve(batch.id),
                keys["bob"].batches.cancel(batch.id),
                keys["bob"].files.retrieve(batch.input_file_id),
                keys["bob"].files.content(batch.input_file_id),
                keys["bob"].files.delete(batch.input_file_id),
            ):
                with pytest.raises(NotFoundError):
                    await ask
            assert (await keys["bob"].batches.list()).data == []
            assert (await keys["bob"].files.list()).data == []
            boss = bearer((await at.key("boss", Scope.ADMIN)).secret.text)
            assert (await running.http.get(f"/v1/batches/{batch.id}", headers=boss)).status_code == 404
            await at.keys.revoke(admin(), ann.key.key_id)
            gate.opened.set()
            again = (await at.key("ann")).secret.text
            over = await ended(client.with_options(api_key=again), batch)
        assert over.request_counts is not None
        assert over.request_counts.to_dict() == {"total": 2, "completed": 1, "failed": 1}
        errors = await running.http.get(f"/v1/files/{over.error_file_id}/content", headers=bearer(again))
        assert errors.json()["response"]["body"]["error"]["code"] == "invalid_api_key"


async def test_lines_count_tokens_and_no_requests() -> None:
    """A rate of requests lets them pass; where tokens are used up a line waits, however long."""
    async with running_server(limits_per_subject="requests_per_hour=1 tokens_per_hour=60") as running:
        requests = HttpBatchRequests(running.services, HttpLimits())
        raw = jsonl([line("a", max_tokens=20)])
        found = [
            await requests.answer(Line(batch_id="batch_1", endpoint=CHAT, number=number, raw=raw), LOCAL_OPERATOR)
            for number in range(12)
        ]
        assert [answer.succeeded for answer in found[:2]] == [True, True]
        last = found[-1]
        assert (last.succeeded, last.again, last.patient) == (False, True, True)
        assert last.retry_after_s is not None
        (entry, *_) = await running.log("CompletionRequested")
        assert json.loads(entry.payload or b"")["priority"] == "background"


async def _of(count: int) -> None:
    """A batch of ``count`` lines, each answered once."""
    async with (
        running_server(Script(pieces=("yes",))) as running,
        working(running, leases(), batch_lines_max=32),
        running.openai() as client,
    ):
        batch = await begun(client, [line(str(number)) for number in range(count)])
        batch = await ended(client, batch, wait_s=600)
        assert batch.output_file_id is not None
        content = await client.files.content(batch.output_file_id)
        assert content.text.count('"custom_id"') == count
        assert batch.request_counts is not None
        assert batch.request_counts.completed == count


async def test_five_hundred_lines() -> None:
    """Lines are recorded in groups, and every one is answered once."""
    await _of(500)


@pytest.mark.long
@pytest.mark.timeout(700)
async def test_fifty_thousand_lines() -> None:
    """As many lines as a batch may have."""
    await _of(50_000)
