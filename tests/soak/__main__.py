"""``make soak``: a real server under load that is hurt all the time, and a report of what was lost (nothing should be).

make soak                               ten minutes, 64 streaming clients
make soak ARGS="--minutes 2"            shorter

Clients disconnect at random, runners are killed, Redis is killed and comes back empty. At the end: every accepted
request has exactly one terminal event, every answer that a client saw whole is in the log, the log verifies, and the
server's memory is flat. Exit code 1 where one of these does not hold.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil

from manent.adapters.inference.starter import install_starter
from tests.soak.clients import Client, Tally
from tests.soak.verdict import Samples, judge
from tests.support.server import Server, prepare_home, serving
from tests.support.valkey import ValkeyServer, serving_valkey

CLIENTS = 64
RUNNER_KILL_S = (15.0, 30.0)
REDIS_KILL_S = (20.0, 40.0)
REDIS_AWAY_S = 3.0
ANSWERS_BETWEEN = 32
SAMPLE_S = 2.0
DRAIN_S = 60.0


async def hurt_runners(server: Server, tally: Tally) -> None:
    """Kill a runner from time to time; one that never answers in between would rightly be given up."""
    while True:
        answered = len(tally.whole)
        await asyncio.sleep(random.uniform(*RUNNER_KILL_S))
        while len(tally.whole) < answered + ANSWERS_BETWEEN:  # noqa: ASYNC110 (a tally sends no event)
            await asyncio.sleep(1.0)
        for pid in server.runner_pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                tally.runner_kills += 1


async def hurt_redis(valkey: ValkeyServer, tally: Tally) -> None:
    """Kill Redis from time to time, and start it again after a while, with nothing in it."""
    while True:
        await asyncio.sleep(random.uniform(*REDIS_KILL_S))
        await asyncio.to_thread(valkey.kill)
        await asyncio.sleep(REDIS_AWAY_S)
        await asyncio.to_thread(valkey.start)
        tally.redis_restarts += 1


async def watch_memory(server: Server, samples: Samples) -> None:
    """Note what the server's own process holds."""
    process = psutil.Process(server.pid)
    while True:
        samples.add(time.monotonic(), process.memory_info().rss)
        await asyncio.sleep(SAMPLE_S)


async def load(server: Server, valkey: ValkeyServer, minutes: float, clients: int) -> tuple[Tally, Samples]:
    """Hurt and load the server for so long; all clients have ended when this returns."""
    tally, samples, enough = Tally(), Samples(), asyncio.Event()
    others = [
        asyncio.create_task(hurt_runners(server, tally)),
        asyncio.create_task(hurt_redis(valkey, tally)),
        asyncio.create_task(watch_memory(server, samples)),
    ]
    talking = [asyncio.create_task(Client(number, server.address, tally).talk(enough)) for number in range(clients)]
    for minute in range(max(1, round(minutes))):
        await asyncio.sleep(minutes * 60 / max(1, round(minutes)))
        sys.stdout.write(f"minute {minute + 1}: {tally}\n")
        sys.stdout.flush()
    enough.set()
    others[0].cancel()
    await asyncio.gather(*talking)
    for task in others:
        task.cancel()
    for outcome in await asyncio.gather(*others, return_exceptions=True):
        if isinstance(outcome, Exception):
            raise outcome
    return tally, samples


def main() -> None:
    """Run it, report, and end with the verdict."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--clients", type=int, default=CLIENTS)
    parser.add_argument("--seed", type=int, default=random.randrange(2**31))
    options = parser.parse_args()
    random.seed(options.seed)
    sys.stdout.write(f"{options.clients} clients for {options.minutes:g} minutes, seed {options.seed}\n")
    model = install_starter(Path(os.environ.get("MANENT_TEST_MODELS", ".cache/models")).absolute())
    with tempfile.TemporaryDirectory(prefix="manent-soak-") as folder, serving_valkey() as valkey:
        home = prepare_home(Path(folder) / "home", model)
        with serving(
            home, redis_url=valkey.url, requests_max=128, running_max=16, drain_s=DRAIN_S, log_level="warning"
        ) as server:
            tally, samples = asyncio.run(load(server, valkey, options.minutes, options.clients))
            stopped = server.stop(signal.SIGTERM, timeout_s=DRAIN_S + 30)
        verdict = judge(home, tally, samples, stopped=stopped)
    waits = sorted(tally.first_content_s)
    if waits:
        p95 = waits[int(len(waits) * 0.95)]
        sys.stdout.write(f"first content: median {statistics.median(waits):.2f} s, p95 {p95:.2f} s\n")
    sys.stdout.write("\n".join(verdict.lines) + f"\n{'PASSED' if verdict.passed else 'FAILED'}\n")
    sys.exit(0 if verdict.passed else 1)


if __name__ == "__main__":
    main()
