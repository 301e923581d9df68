"""What metrics, logs and traces cost together: requests per second of one server with them beside one without.

Both have the scripted engine, which takes no time, so that the figure is the worst there is; each round loads both, in
alternating order. Figures are medians over the rounds, of requests per second and of the server's processor time for
each request, which a busy machine disturbs less.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

import psutil

from tests.support.server import Server, serving

CLIENTS = 16
BODY = b'{"model":"default","messages":[{"role":"user","content":"Say something."}],"max_tokens":32}'
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
CHAT = HEAD + b"content-length: %d\r\n\r\n" % len(BODY) + BODY
SCRAPE = b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n"
SCRAPE_EVERY_S = 5.0
OFF = {"metrics": "off", "log_level": "error", "traces": "off"}
ON = {"metrics": "main", "log_level": "info", "log_format": "json", "traces": "otlp"}
TARGET_PERCENT = 97.0


async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> None:
    """One request and its whole answer."""
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(head.decode())
    length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
    await reader.readexactly(length)


async def load(port: int, requests: int, *, scrapes: bool) -> None:
    """So many requests from ``CLIENTS`` connections; with ``scrapes`` somebody reads the metrics meanwhile."""
    left = iter(range(requests))

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**20)
        for _ in left:
            await exchange(reader, writer, CHAT)
        writer.close()

    async def scraper() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**20)
        while True:
            await exchange(reader, writer, SCRAPE)
            await asyncio.sleep(SCRAPE_EVERY_S)

    scraping = asyncio.create_task(scraper()) if scrapes else None
    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    if scraping is not None:
        scraping.cancel()


def figures(server: Server, requests: int, *, scrapes: bool) -> tuple[float, float]:
    """Requests per second, and microseconds of the server's processor time for each."""
    process, port = psutil.Process(server.pid), urlsplit(server.address).port or 0
    before, began_s = process.cpu_times(), time.perf_counter()
    asyncio.run(load(port, requests, scrapes=scrapes))
    took_s, after = time.perf_counter() - began_s, process.cpu_times()
    used_s = after.user + after.system - before.user - before.system
    return requests / took_s, 1e6 * used_s / requests


class _Collector(BaseHTTPRequestHandler):
    """Takes traces, and forgets them."""

    def do_POST(self) -> None:
        """An export."""
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the library's name)
        """Nothing."""


@contextmanager
def collector() -> Iterator[str]:
    """The address of a collector of traces."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Collector) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{listening.server_address[1]}"
        listening.shutdown()


def compare(*, rounds: int, requests: int = 3000) -> None:
    """Run and print."""
    with tempfile.TemporaryDirectory() as temporary, collector() as address:
        os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = address  # servers inherit it; only one sends traces
        homes = [Path(temporary) / name for name in ("without", "with")]
        for home in homes:
            home.mkdir()
        with (
            serving(homes[0], engine="scripted", **OFF) as without,
            serving(homes[1], engine="scripted", **ON) as fully,
        ):
            sides = ((without, False), (fully, True))
            pairs = []
            for number in range(-1, rounds):
                order = (0, 1) if number % 2 else (1, 0)
                found = {side: figures(sides[side][0], requests, scrapes=sides[side][1]) for side in order}
                if number >= 0:  # the round before the first warms both up
                    pairs.append((found[0], found[1]))
    _print(pairs)


def _print(pairs: list[tuple[tuple[float, float], tuple[float, float]]]) -> None:
    speeds = [median(pair[side][0] for pair in pairs) for side in (0, 1)]
    used_us = [median(pair[side][1] for pair in pairs) for side in (0, 1)]
    ratio = 100 * median(told[0] / bare[0] for bare, told in pairs)
    cpu = 100 * median(bare[1] / told[1] for bare, told in pairs)
    lines = (
        f"Metrics, logs and traces, all on beside all off; {len(pairs)} rounds, medians:",
        f"  requests/s      {speeds[1]:.0f} beside {speeds[0]:.0f}: {ratio:.1f} % (target: {TARGET_PERCENT:g} %)",
        f"  processor time  {used_us[1]:.0f} beside {used_us[0]:.0f} us a request: {cpu:.1f} %",
    )
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    compare(rounds=5)
