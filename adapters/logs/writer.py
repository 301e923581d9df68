"""Writing log lines without ever waiting for whoever reads them.

A disk that is full, a pipe that nobody empties or a terminal that was closed costs lines, which are counted, and never
a request: callers put their record in a bounded queue, and a thread of its own formats and writes.
"""

from __future__ import annotations

import logging
import os
import threading
from queue import Empty, SimpleQueue
from typing import TextIO

from manent.domain.telemetry import REQUEST

WAITING_MAX = 10_000
BATCH_MAX = 500
PAUSE_S = 0.05
CLOSE_S = 1.0


class BackgroundHandler(logging.Handler):
    """Writes to the file descriptor of ``stream``; where there is none, lines go nowhere and are counted."""

    def __init__(self, stream: TextIO | None, *, waiting_max: int = WAITING_MAX) -> None:
        super().__init__()
        self.dropped = 0
        self._waiting_max = waiting_max
        self._descriptor = _descriptor_of(stream)
        self._waiting: SimpleQueue[logging.LogRecord] = SimpleQueue()
        self._closing = threading.Event()
        self._writer = threading.Thread(target=self._write_all, name="log", daemon=True)
        self._writer.start()

    def createLock(self) -> None:  # noqa: N802 (logging's name)
        """None is needed: the queue is one."""
        self.lock = None

    def handle(self, record: logging.LogRecord) -> bool:
        """Take a record, with the request that it belongs to."""
        if self._waiting.qsize() >= self._waiting_max or self._closing.is_set():
            self.dropped += 1
            return False
        scope = REQUEST.get()
        if scope is not None and not hasattr(record, "request_id"):
            record.request_id = scope.request_id
            if scope.correlation_id is not None:
                record.correlation_id = scope.correlation_id
        self._waiting.put(record)
        return True

    def close(self) -> None:
        """Write what waits, within ``CLOSE_S``; a reader that hangs is left behind."""
        self._closing.set()
        self._writer.join(timeout=CLOSE_S)
        super().close()

    def _write_all(self) -> None:
        while True:
            try:
                batch = [self._waiting.get(timeout=PAUSE_S)]
            except Empty:
                if self._closing.is_set():
                    return
                continue
            # A pause instead of a wake-up for each line: this thread and the server's share one interpreter.
            self._closing.wait(PAUSE_S)
            while len(batch) < BATCH_MAX and not self._waiting.empty():
                batch.append(self._waiting.get())
            self._write(batch)

    def _write(self, batch: list[logging.LogRecord]) -> None:
        lines = []
        for record in batch:
            try:
                lines.append(self.format(record))
            except Exception:  # noqa: BLE001 (a line that cannot be formatted must not end the others)
                self.dropped += 1
        data = "".join(f"{line}\n" for line in lines).encode("utf-8", "backslashreplace")
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
        except OSError:
            self.dropped += len(lines)


def _descriptor_of(stream: TextIO | None) -> int:
    """The descriptor; -1, to which nothing can be written, where standard error was closed at the start.

    Its number may by now belong to the database.
    """
    try:
        return -1 if stream is None else stream.fileno()
    except (OSError, ValueError):
        return -1
