"""Models that are loaded, used, unloaded and killed at random, on a server that has memory for half of them.

Every answer is compared with the one that the same model gave when it was alone; every request has to end; and what
the server holds, in memory, descriptors and processes, is measured before and after.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

from tests.support.http import NO_TLS
from tests.support.server import Server
from tests.support.tiny_models import make_tiny_model

REQUEST_S = 120.0
AT_ONCE = 3
LOG_FILE = "manent.db"
SETTLES = 100
"""So often is looked, ten times a second: connections that clients closed are closed by the server a moment later."""
PROMPT = "Say something."
# What a request may be told instead of an answer: there was no room in time, or its runner was killed under it.
REFUSALS = frozenset(
    {"insufficient_memory", "runner_crashed", "model_unavailable", "model_load_failed", "model_in_use"}
)


def make_home(home: Path, *, starter: Path, models: int) -> list[str]:
    """A home with so many tiny models; their ids."""
    names = [f"tiny-{number}" for number in range(models)]
    for number, name in enumerate(names):
        make_tiny_model(home / "models" / name, starter=starter, seed=number)
    (home / "models.toml").write_text("".join(f'[[models]]\nid = "{name}"\n' for name in names), encoding="utf-8")
    return names


@dataclass(frozen=True)
class Footprint:
    """What a process holds, and its children.

    Connections to the log are left out: they are opened when several requests read at once, and kept, up to a bound.
    """

    memory_bytes: int
    descriptors: int
    children: int

    @classmethod
    def of(cls, pid: int) -> Footprint:
        """Measured now."""
        process = psutil.Process(pid)
        of_log = sum(LOG_FILE in Path(file.path).name for file in process.open_files())
        children = len(process.children(recursive=True))
        return cls(process.memory_info().rss, process.num_fds() - of_log, children)


@dataclass
class Churn:
    """The steps, and what came of them."""

    server: Server
    names: list[str]
    answers: dict[str, str] = field(default_factory=dict)
    memory_bytes: dict[str, int] = field(default_factory=dict)
    outcomes: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    async def learn(self) -> None:
        """Load each model alone, keep its answer and its memory, and unload it."""
        async with self._client() as http:
            for name in self.names:
                answer = await self._chat(http, name)
                answer.raise_for_status()
                self.answers[name] = _text(answer)
                self.memory_bytes[name] = (await http.get(f"/v1/models/{name}")).json()["memory_bytes"]
                (await http.post(f"/v1/models/{name}/unload")).raise_for_status()

    async def run(self, steps: int, *, seed: int) -> None:
        """Random steps, a few at once, each to its end."""
        rng, room = random.Random(seed), asyncio.Semaphore(AT_ONCE)
        async with self._client() as http, asyncio.TaskGroup() as group:
            for _ in range(steps):
                await room.acquire()
                kind = rng.choices(["generate", "load", "unload", "kill"], [60, 12, 16, 12])[0]
                group.create_task(self._step(http, kind, rng.choice(self.names), room))

    async def settle(self) -> None:
        """Unload everything, and wait until the processes are gone."""
        async with self._client() as http:
            for name in self.names:
                (await http.post(f"/v1/models/{name}/unload")).raise_for_status()
        async with asyncio.timeout(REQUEST_S):
            while psutil.Process(self.server.pid).children(recursive=True):  # noqa: ASYNC110 (processes send no event)
                await asyncio.sleep(0.05)

    async def settled_footprint(self, expected: Footprint) -> Footprint:
        """What the server holds once it has closed what requests had open, or after a bounded wait for that."""
        for _ in range(SETTLES):
            if (found := Footprint.of(self.server.pid)).descriptors <= expected.descriptors and not found.children:
                break
            await asyncio.sleep(0.1)
        return found

    async def _step(self, http: httpx.AsyncClient, kind: str, name: str, room: asyncio.Semaphore) -> None:
        try:
            if kind == "generate":
                answer = await self._chat(http, name)
                if answer.is_success and _text(answer) != self.answers[name]:
                    self.wrong.append(f"{name} said {_text(answer)!r} instead of {self.answers[name]!r}")
            elif kind == "kill":
                self._kill()
                return
            else:
                answer = await http.post(f"/v1/models/{name}/{kind}")
            self._count(kind, answer)
        finally:
            room.release()

    def _kill(self) -> None:
        """SIGKILL for one of the runners, whichever model it has."""
        runners = self.server.runner_pids()
        if runners:
            with contextlib.suppress(ProcessLookupError):
                os.kill(random.choice(runners), signal.SIGKILL)
        self.outcomes["kill" if runners else "kill nobody"] += 1

    def _count(self, kind: str, answer: httpx.Response) -> None:
        code = "ok" if answer.is_success else str(answer.json()["error"]["code"])
        if code != "ok" and code not in REFUSALS:
            self.wrong.append(f"{kind} ended in {answer.status_code}: {answer.text}")
        self.outcomes[f"{kind} {code}"] += 1

    async def _chat(self, http: httpx.AsyncClient, name: str) -> httpx.Response:
        return await http.post(
            "/v1/chat/completions",
            json={
                "model": name,
                "messages": [{"role": "user", "content": PROMPT}],
                "max_tokens": 6,
                "temperature": 0,
            },
        )

    def _client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.server.address, timeout=REQUEST_S, verify=NO_TLS)


def _text(answer: httpx.Response) -> str:
    return str(answer.json()["choices"][0]["message"]["content"])
