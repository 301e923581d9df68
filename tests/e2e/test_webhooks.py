"""Webhooks as an operator has them: made by command or over HTTP, sent by a real server, resumed after kill -9."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from standardwebhooks import Webhook as ReceiversLibrary

from tests.support.commands import manent
from tests.support.receiver import receiving
from tests.support.server import serving

CHAT = {"model": "default", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}
SETTINGS = {"engine": "scripted", "webhook_urls": "private"}


@pytest.mark.timeout(120)
async def test_webhooks_of_a_real_server(tmp_path: Path) -> None:
    """Over HTTP and by command; what was recorded while the server was down is sent by the next."""

    def command(*arguments: str) -> str:
        done = manent(*arguments, home=tmp_path, **SETTINGS)
        assert done.returncode == 0, done.stderr
        return done.stdout

    async with receiving() as receiver, httpx.AsyncClient(timeout=30) as client:
        with serving(tmp_path, **SETTINGS) as server:
            asked = {"url": receiver.url, "events": ["CompletionGenerated"], "content": True}
            made = (await client.post(f"{server.address}/v1/webhooks", json=asked)).raise_for_status().json()
            (await client.post(f"{server.address}/v1/chat/completions", json=CHAT)).raise_for_status()
            (first,) = await receiver.until(1)
            assert ReceiversLibrary(made["secret"]).verify(first.body, first.headers)["type"] == "CompletionGenerated"
            path = f"{server.address}/v1/webhooks/{made['id']}"
            shown = (await client.get(path)).json()
            assert shown.pop("position") > 0
            assert shown == {name: value for name, value in made.items() if name != "secret"}
            for wrong, status in (({"events": ["Nothing"]}, 400), ({"secret": "x"}, 400), ({"url": "ftp://a"}, 400)):
                assert (await client.post(path, json=wrong)).status_code == status
            assert (await client.get(f"{path}/dead_letters")).json()["data"] == []
            assert (await client.post(f"{path}/dead_letters/1/redeliver")).status_code == 404
            assert (await client.get(f"{server.address}/v1/webhooks/wh_other")).status_code == 404
            receiver.status = 500
            (await client.post(f"{server.address}/v1/chat/completions", json=CHAT)).raise_for_status()
            await receiver.until_seen(2)
            server.kill()
        with closing(sqlite3.connect(tmp_path / "manent.db")) as database, database:
            database.execute("UPDATE subscriptions SET expires_at_us = 0")  # as half a minute later
        receiver.status = 204
        with serving(tmp_path, **SETTINGS) as server:
            taken = await receiver.until(2)
            assert [message.position for message in taken] == sorted(message.position for message in receiver.taken)
            made_here = json.loads(command("webhooks", "create", receiver.url, "--event", "SessionStarted", "--json"))
            (await client.post(f"{server.address}/v1/sessions", json={})).raise_for_status()
            third = (await receiver.until(3))[2]
            assert ReceiversLibrary(made_here["secret"]).verify(third.body, third.headers)["type"] == "SessionStarted"
            assert command("webhooks", "list", "--json").count("\n") == 2
            assert "is disabled" in command("webhooks", "disable", made["id"])
            assert "is removed" in command("webhooks", "delete", made_here["webhook_id"])
            assert command("webhooks", "dead-letters", made["id"]) == ""
            (found,) = (await client.get(f"{server.address}/v1/webhooks")).json()["data"]
            assert (found["id"], found["enabled"]) == (made["id"], False)
            assert (await client.delete(f"{server.address}/v1/webhooks/{made['id']}")).json()["deleted"] is True
            assert server.stop() == 0
        assert made["secret"] not in "".join(server.output)
