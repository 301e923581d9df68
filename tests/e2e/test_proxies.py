"""The examples of reverse proxies, in the programs themselves where they are installed: nothing is held up."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import httpx
import pytest
from websockets.asyncio.client import connect

from manent.adapters.http.context import HttpLimits
from manent.adapters.inference.script import Script
from tests.support.certificates import Authority
from tests.support.hooks import Held
from tests.support.http import USER, running_server
from tests.support.websockets import Chats

DEPLOY = Path(__file__).parents[2] / "docs" / "how-to" / "deploy"
UPSTREAM = "127.0.0.1:9123"
WAIT_S = 15.0
JSON = {"content-type": "application/json"}
AROUND = """{user}pid {folder}/pid; error_log stderr; events {{}}
http {{ access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; {file} }}
"""


def free_port() -> int:
    """A port that nobody listens on."""
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port: int = free.getsockname()[1]
        return port


@asynccontextmanager
async def proxy(name: str, upstream: str, authority: Authority) -> AsyncGenerator[str, None]:
    """The example of ``name`` in front of ``upstream``, on a port and with a certificate of its own; its address."""
    program = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        pytest.skip(f"{name} is not installed on this machine")
    folder, port = authority.folder, free_port()
    if name == "nginx":
        text = (DEPLOY / "nginx.conf").read_text(encoding="utf-8")
        for old, new in (
            ("listen 443", f"listen 127.0.0.1:{port}"),
            ("/etc/ssl/manent.example.com.crt", str(authority.chain)),
            ("/etc/ssl/manent.example.com.key", str(authority.key)),
            (UPSTREAM, upstream),
        ):
            assert old in text
            text = text.replace(old, new)
        user = "user root; " if os.geteuid() == 0 else ""
        (folder / "nginx.conf").write_text(AROUND.format(user=user, folder=folder, file=text), encoding="utf-8")
        command = [program, "-c", str(folder / "nginx.conf"), "-g", "daemon off;"]
        address = f"https://localhost:{port}"
    else:
        text = (DEPLOY / "Caddyfile").read_text(encoding="utf-8")
        address = f"http://127.0.0.1:{port}"
        text = text.replace("manent.example.com {", f"{address} {{").replace(UPSTREAM, upstream)
        (folder / "Caddyfile").write_text("{\n\tadmin off\n}\n" + text, encoding="utf-8")
        command = [program, "run", "--adapter", "caddyfile", "--config", str(folder / "Caddyfile")]
    process = await asyncio.create_subprocess_exec(
        *command, stderr=asyncio.subprocess.DEVNULL, env={**os.environ, "HOME": str(folder)}
    )
    try:
        async with asyncio.timeout(WAIT_S):
            while not await listens(port):  # noqa: ASYNC110 (a program tells nobody)
                await asyncio.sleep(0.05)
        yield address
    finally:
        process.terminate()
        await process.wait()


async def listens(port: int) -> bool:
    """Whether somebody does."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


@pytest.mark.long
@pytest.mark.parametrize("name", ["nginx", "caddy"])
async def test_streams_and_web_sockets_pass(tmp_path: Path, name: str) -> None:
    """The first piece comes before the second is made; a body that is too large is a 413; a WebSocket is one."""
    authority, held = Authority(tmp_path), Held(1)
    authority.issue()
    body = {"model": "default", "messages": [USER], "stream": True}
    async with (
        asyncio.timeout(60),
        running_server(Script(before_delta=held), limits=HttpLimits(body_bytes_max=10_000_000)) as server,
        proxy(name, server.address.removeprefix("http://"), authority) as address,
        httpx.AsyncClient(base_url=address, verify=authority.client(), timeout=WAIT_S) as http,
    ):
        async with http.stream("POST", "/v1/chat/completions", json=body) as answer:
            lines = answer.aiter_lines()
            async for line in lines:
                if "Hello" in line:
                    break
            held.released.set()
            assert [line async for line in lines if line][-1] == "data: [DONE]"
        tls = authority.client() if address.startswith("https") else None
        async with connect(f"ws{address.removeprefix('http')}/v1/ws/chat", ssl=tls, proxy=None) as connection:
            chat = Chats(connection)
            await chat.ask("one")
            assert (await chat.hear_all("one"))["one"][-1]["type"] == "done"
        large = await http.post("/v1/chat/completions", content=b"x" * 11_000_000, headers=JSON)
        assert large.status_code == 413
