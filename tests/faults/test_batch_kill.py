"""A real server that is killed in the middle of a batch, and started again: every line is answered once."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path

import httpx
import psutil
import pytest
from openai import OpenAI
from openai.types import Batch
from sqlalchemy import URL

from tests.support.batches import CHAT, ENDED, jsonl, line
from tests.support.commands import manent
from tests.support.server import serving

LINES = 200
WAIT_S = 60.0


def until(client: OpenAI, batch_id: str, *, completed: int) -> Batch:
    """The batch, once so many lines are answered, or it is over."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        batch = client.batches.retrieve(batch_id)
        if batch.status in ENDED or (batch.request_counts is not None and batch.request_counts.completed >= completed):
            return batch
        time.sleep(0.02)
    raise AssertionError(f"the batch did not get that far: {batch}")


@pytest.mark.timeout(120)
def test_a_server_that_is_killed_half_way(tmp_path: Path) -> None:
    """What was recorded stays, what was not is done once more, and nothing stands in the files twice."""
    settings = {"engine": "scripted", "sweep_interval_s": 1, "batch_lines_max": 4}
    with serving(tmp_path, **settings) as server:
        client = server.client()
        data = jsonl([*(line(f"n{number}", max_tokens=2) for number in range(LINES - 1)), line("bad", temperature=9)])
        file = client.files.create(file=("in.jsonl", data), purpose="batch")
        made = client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
        before = until(client, made.id, completed=1)
        assert before.status == "in_progress"
        server.kill()
    with serving(tmp_path, **settings) as server:
        client = server.client()
        after = until(client, made.id, completed=LINES)  # one of them fails: only its end is waited for
        assert after.status == "completed"
        assert after.request_counts is not None
        assert after.request_counts.to_dict() == {"total": LINES, "completed": LINES - 1, "failed": 1}
        assert after.output_file_id is not None
        assert after.error_file_id is not None
        found = Counter(
            json.loads(one)["custom_id"]
            for file_id in (after.output_file_id, after.error_file_id)
            for one in client.files.content(file_id).text.splitlines()
        )
        assert found == dict.fromkeys(("bad", *(f"n{number}" for number in range(LINES - 1))), 1)
    shown = manent("batches", "show", made.id, home=tmp_path).stdout
    assert f"{made.id} is completed: {LINES - 1} of {LINES}, 1 failed" in shown
    assert made.id in manent("batches", "list", home=tmp_path).stdout
    refused = manent("batches", "cancel", made.id, home=tmp_path)
    assert (refused.returncode, "nothing left to cancel" in refused.stderr) == (1, True)
    generated = manent("events", "--type", "CompletionGenerated", "--json", home=tmp_path).stdout.splitlines()
    assert len(generated) == LINES - 1
    taken = manent("events", "--type", "BatchTaken", "--json", home=tmp_path).stdout.splitlines()
    assert len(taken) == 2
    assert manent("log", "verify", home=tmp_path).returncode == 0


@pytest.mark.long
@pytest.mark.timeout(180)
def test_another_node_takes_over(tmp_path: Path, postgres_url: URL) -> None:
    """Two servers on one PostgreSQL: the one that works is killed, and the other answers what is left."""
    settings = {
        "engine": "scripted",
        "database_url": postgres_url.render_as_string(hide_password=False),
        "sweep_interval_s": 2,
        "batch_lines_max": 2,
    }
    homes = [tmp_path / name for name in ("a", "b")]
    for home in homes:
        home.mkdir()
    with serving(homes[0], **settings) as first, serving(homes[1], **settings) as second:
        servers = {first.pid: first, second.pid: second}
        client = first.client()
        file = client.files.create(file=("in.jsonl", jsonl([line(str(n)) for n in range(1000)])), purpose="batch")
        made = client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
        until(client, made.id, completed=1)
        busy = max(servers, key=lambda pid: sum(psutil.Process(pid).cpu_times()[:2]))
        servers.pop(busy).kill()
        (left,) = servers.values()
        client = left.client()
        after = until(client, made.id, completed=1000)
        assert after.request_counts is not None
        assert after.request_counts.completed == 1000
        while after.status != "completed":
            after = client.batches.retrieve(made.id)
        taken = httpx.get(f"{left.address}/v1/events", params={"type": "BatchTaken"}).json()["data"]
        assert len(taken) == 2
        assert after.output_file_id is not None
        lines = client.files.content(after.output_file_id).text.splitlines()
        assert Counter(json.loads(one)["custom_id"] for one in lines) == dict.fromkeys(map(str, range(1000)), 1)
