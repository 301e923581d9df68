"""The log over HTTP: pages, filters, and hashes that any reader can recompute."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import pytest

from manent.adapters.http.wire_responses import EventList
from tests.support.http import running_server


async def test_every_digest_can_be_recomputed_from_the_wire() -> None:
    """Salt and payload bytes as sent give the header's digest: the bytes of the log are not reformatted."""
    async with running_server() as running:
        await running.chat(session_id="s", messages=[{"role": "user", "content": 'é "quoted" \u2028 </script>'}])
        answer = await running.http.get("/v1/events")
        EventList.model_validate_json(answer.content, strict=True)
        for event in answer.json()["data"]:
            header = event["header"]
            assert list(header) == sorted(header)
            payload = json.dumps(event["payload"], separators=(",", ":"), ensure_ascii=False).encode()
            assert payload in answer.content
            digest = hashlib.sha256(base64.b64decode(event["salt"]) + payload).hexdigest()
            assert digest == header["payload_digest"]


@pytest.mark.parametrize("prefix", ["/v1", "/api/v1"])
async def test_pages_cover_the_log_once(prefix: str) -> None:
    """Following last_id reads every position once and in order."""
    async with running_server() as running:
        for _ in range(5):
            await running.chat()
        positions: list[int] = []
        after = "0"
        while True:
            page = (await running.http.get(f"{prefix}/events", params={"after": after, "limit": 3})).json()
            positions += [event["header"]["position"] for event in page["data"]]
            assert page["first_id"] == str(page["data"][0]["header"]["position"])
            after = page["last_id"]
            if not page["has_more"]:
                break
        assert positions == list(range(1, 11))


@pytest.mark.parametrize(
    ("query", "positions"),
    [
        ({"type": "CompletionGenerated"}, [4, 7]),
        ({"stream": "session-s"}, [1, 2, 3, 4, 5]),
        ({"stream": "session-none"}, []),
        ({"min_position": 2, "max_position": 4}, [2, 3, 4]),
        ({"min_position": 2, "after": 3, "limit": 2}, [4, 5]),
        ({"after": 7}, []),
    ],
)
async def test_filters_narrow(query: dict[str, Any], positions: list[int]) -> None:
    """Stream, type and positions narrow the page; all given ones must match."""
    async with running_server() as running:
        await running.chat(session_id="s")
        await running.chat()
        found = (await running.http.get("/v1/events", params=query)).json()["data"]
        assert [event["header"]["position"] for event in found] == positions


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"limit": 1001}, "limit"),
        ({"after": "evt_1"}, "after"),
        ({"min_position": -1}, "min_position"),
        ({"stream_id": "x"}, "stream_id"),
    ],
)
async def test_a_wrong_query_is_refused(query: dict[str, Any], param: str) -> None:
    """Nothing of a query is guessed."""
    async with running_server() as running:
        answer = await running.http.get("/v1/events", params=query)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
