"""A real server under clients that mean harm: thousands that say nothing, and what they cost others and the memory."""

from __future__ import annotations

import resource
import socket
import stat
from contextlib import ExitStack
from pathlib import Path

import httpx
import psutil
import pytest

from tests.support.certificates import Authority
from tests.support.commands import manent
from tests.support.server import serving

IDLE = 5_000
OTHER_FILES = 500
BIG = b'{"model": "default", "messages": [' + b'{"role": "user", "content": ""},' * 200_000 + b"1]}"


@pytest.mark.timeout(120)
def test_five_thousand_idle_connections_keep_nobody_out(tmp_path: Path) -> None:
    """They stay within the bound and cost little, and whoever asks something is answered; so do huge bodies."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Where so many files may not be open, there are fewer connections: three times as many as the server takes.
    idle = IDLE if hard == resource.RLIM_INFINITY else min(IDLE, hard - OTHER_FILES)
    assert idle >= 3_000
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, idle + OTHER_FILES), hard))
    with serving(tmp_path, engine="scripted") as server, ExitStack() as stack:
        client = stack.enter_context(httpx.Client(trust_env=False, timeout=30))
        process = psutil.Process(server.pid)
        before_bytes = process.memory_info().rss
        port = httpx.URL(server.address).port
        for _ in range(idle):
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
        answer = client.get(f"{server.address}/v1/models")
        assert answer.status_code == 200
        assert len([one for one in process.net_connections() if one.status == "ESTABLISHED"]) <= 1_000
        headers = {"content-type": "application/json"}
        for _ in range(3):
            refused = client.post(f"{server.address}/v1/chat/completions", content=BIG, headers=headers)
            assert (refused.status_code, refused.json()["error"]["code"]) == (400, "invalid_value")
        assert process.memory_info().rss - before_bytes < 300_000_000


def test_commands_find_a_server_behind_tls(tmp_path: Path) -> None:
    """By its own certificate, whatever name is in it; another's in its place is not believed."""
    authority, other = Authority(tmp_path / "a"), Authority(tmp_path / "b")
    authority.issue("mac.tail.ts.net")
    other.issue()
    with serving(tmp_path, engine="scripted", tls_certificate=authority.chain, tls_key=authority.key) as server:
        assert server.address.startswith("https://127.0.0.1:")
        port = httpx.URL(server.address).port
        trusting = {"port": port, "tls_key": authority.key}
        done = manent("models", "load", "default", home=tmp_path, tls_certificate=authority.chain, **trusting)
        assert done.returncode == 0, done.stderr
        done = manent("models", "load", "default", home=tmp_path, tls_certificate=other.chain, **trusting)
        assert done.returncode == 3
        assert "certificate" in done.stderr


def test_a_server_on_a_unix_socket(tmp_path: Path) -> None:
    """With its permissions, found by commands, answering to its names, and gone at the end."""
    path = tmp_path / "manent.sock"
    with serving(tmp_path, engine="scripted", unix_socket=path, unix_socket_mode="660") as server:
        assert server.address == f"unix:{path}"
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert manent("models", "load", "default", home=tmp_path, unix_socket=path).returncode == 0
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://localhost") as client:
            assert client.get("/v1/models").status_code == 200
            assert client.get("/v1/models", headers={"host": "evil.example"}).status_code == 421
        assert server.stop() == 0
    assert not path.exists()
