"""Chats over a WebSocket with a real server: the real model, and the end of a server's life."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.support.server import Server, serving

BODY = {"model": "default", "messages": [{"role": "user", "content": "Count to ten."}], "max_tokens": 8, "seed": 1}


def heard(socket: ClientConnection) -> list[dict[str, Any]]:
    """What is said until a request has ended."""
    said = [json.loads(socket.recv(timeout=60))]
    while said[-1]["type"] not in {"done", "error"}:
        said.append(json.loads(socket.recv(timeout=60)))
    return said


def test_a_chat_over_a_websocket(server: Server, client: OpenAI) -> None:
    """The same answer as over HTTP, cut by a dead connection and resumed on a new one, and found in the log."""
    whole = client.chat.completions.create(**BODY, temperature=0)  # type: ignore[call-overload]  # as it stands
    address = server.address.replace("http", "ws") + "/v1/ws/chat"
    with connect(address, proxy=None) as socket:
        body = {**BODY, "temperature": 0, "background": True, "session_id": "on-a-socket"}
        socket.send(json.dumps({"type": "chat", "id": "a", "body": body}))
        opened, first = json.loads(socket.recv(timeout=60)), json.loads(socket.recv(timeout=60))
        socket.socket.close()
    with connect(address, proxy=None) as socket:
        message = {"type": "resume", "id": "b", "completion_id": opened["completion_id"], "cursor": first["cursor"]}
        socket.send(json.dumps(message))
        said = heard(socket)
    texts = [choice["delta"].get("content") or "" for one in said[1:-1] for choice in one["data"]["choices"]]
    assert "".join(texts) == whole.choices[0].message.content
    assert said[-1]["type"] == "done"


def test_a_stop_ends_sockets_behind_their_chats(tmp_path: Path) -> None:
    """SIGTERM: an idle socket is told that the server goes away, and the process ends in time."""
    with serving(tmp_path, engine="scripted") as server:
        address = server.address.replace("http", "ws") + "/v1/ws/chat"
        with connect(address, proxy=None) as idle:
            idle.send(json.dumps({"type": "chat", "id": "a", "body": BODY}))
            assert heard(idle)[-1]["type"] == "done"
            server.process.send_signal(signal.SIGTERM)
            with pytest.raises(ConnectionClosed):
                idle.recv(timeout=10)
            assert idle.protocol.close_code == 1001
        assert server.process.wait(timeout=10) == 0
