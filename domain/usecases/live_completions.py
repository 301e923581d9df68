"""The set of all completions that run in this process, and their end."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator

from manent.domain.errors import ShuttingDown
from manent.domain.records import IdempotencyKey
from manent.domain.usecases.running import RunningCompletion


class LiveCompletions:
    """All completions that run in this process, each with the task that owns it."""

    def __init__(self) -> None:
        self._tasks: dict[str, tuple[RunningCompletion, asyncio.Task[None]]] = {}
        self._draining = False

    def __contains__(self, completion_id: object) -> bool:
        return completion_id in self._tasks

    def __iter__(self) -> Iterator[RunningCompletion]:
        return iter([running for running, _ in self._tasks.values()])

    def __len__(self) -> int:
        return len(self._tasks)

    @property
    def draining(self) -> bool:
        """Whether nothing new is accepted any more."""
        return self._draining

    def run(self, running: RunningCompletion, life: Coroutine[None, None, None]) -> None:
        """Own ``life`` until it ends.

        Raises:
            ShuttingDown: the server drains.
        """
        if self._draining:
            life.close()
            raise ShuttingDown("the server is shutting down and accepts no new requests")
        task = asyncio.create_task(life, name=f"completion {running.completion_id}")
        started_as = running.completion_id
        self._tasks[started_as] = running, task
        task.add_done_callback(lambda _: self._tasks.pop(started_as, None))

    def find(self, tenant: str, completion_id: str) -> RunningCompletion | None:
        """The completion with this id, if it runs here."""
        found = self._tasks.get(completion_id)
        return found[0] if found is not None and found[0].tenant == tenant else None

    def with_key(self, key: IdempotencyKey) -> RunningCompletion | None:
        """The completion that runs under the same key, if one does.

        Raises:
            IdempotencyConflict: it runs for another request.
        """
        for running in self:
            if running.idempotency is not None and running.idempotency.place == key.place and not running.failed:
                key.check_same_request(running.idempotency.request_digest)
                return running
        return None

    async def cancel_session(self, tenant: str, session_id: str, *, reason: str, wait_s: float) -> None:
        """Stop the completions of a session and wait until each is closed, at most ``wait_s``."""
        tasks = []
        for running, task in self._tasks.values():
            if running.tenant == tenant and running.session_id == session_id:
                running.cancel(reason)
                tasks.append(task)
        if tasks:
            await asyncio.wait(tasks, timeout=wait_s)

    async def drain(self, *, finish_s: float, close_s: float) -> int:
        """Accept nothing more; let what runs finish within ``finish_s``, cancel the rest, wait ``close_s`` for that.

        Returns:
            How many are left without a terminal event; the next start closes them as interrupted.
        """
        self._draining = True
        if self._tasks and finish_s > 0:
            await asyncio.wait([task for _, task in self._tasks.values()], timeout=finish_s)
        for running in self:
            running.cancel("shutting_down")
        if self._tasks:
            await asyncio.wait([task for _, task in self._tasks.values()], timeout=close_s)
        return len(self._tasks)
