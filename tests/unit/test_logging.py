"""Log lines: what they say, what they never say, and that nobody waits for whoever reads them."""

from __future__ import annotations

import io
import json
import logging
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

import pytest

from manent.adapters.inference import runner_log
from manent.adapters.inference.protocol import Generate
from manent.adapters.logs.lines import JsonLines, console_lines
from manent.adapters.logs.setup import configure_logging, stop_logging
from manent.adapters.logs.writer import BackgroundHandler
from manent.domain.errors import InvalidValue
from manent.domain.safe_errors import safe_name, safe_traceback
from manent.domain.telemetry import REQUEST, RequestScope
from tests.support.engines import parameters

CANARY = "canary-5f1c"
log = logging.getLogger("manent.test")


@contextmanager
def pipe() -> Iterator[tuple[TextIO, TextIO]]:
    """Both ends of a pipe."""
    reader, writer = os.pipe()
    with os.fdopen(reader) as read, os.fdopen(writer, "w") as write:
        yield read, write


def record(message: str = "hello", **more: object) -> logging.LogRecord:
    """A record."""
    return logging.makeLogRecord({"name": "manent.test", "levelno": 20, "levelname": "INFO", "msg": message, **more})


def failure(error: BaseException) -> BaseException:
    """``error`` with a traceback, raised from another."""
    try:
        try:
            os.environ[CANARY]
        except KeyError as first:
            raise error from first
    except type(error) as raised:
        return raised
    raise AssertionError


@pytest.mark.parametrize("lines", [JsonLines(), console_lines()], ids=["json", "console"])
@pytest.mark.parametrize(
    "error", [ValueError(CANARY), InvalidValue(CANARY), sqlite3.IntegrityError(f"x {CANARY}"), OSError(28, CANARY)]
)
def test_exceptions_are_told_without_their_messages(lines: logging.Formatter, error: Exception) -> None:
    """Type and place are told, and neither what it says nor the values around it."""
    line = lines.format(record("it failed", exc_info=(type(error), failure(error), None)))
    assert CANARY not in line
    assert type(error).__name__ in line
    assert "KeyError" in line
    assert "in failure" in line


def test_what_may_be_told_of_an_error() -> None:
    """The system's own words, a code, a missing module and want of memory help whoever has to mend it."""
    assert "No space left" in safe_name(OSError(28, CANARY))
    assert safe_name(InvalidValue(CANARY)) == "InvalidValue (invalid_value)"
    assert safe_name(ModuleNotFoundError(CANARY, name="mlx")) == "ModuleNotFoundError: mlx"
    assert safe_name(RuntimeError(f"[metal::malloc] {CANARY}")) == "RuntimeError: out of memory"
    loop = ValueError(CANARY)
    loop.__context__ = loop
    assert safe_traceback(loop).count("ValueError") == 8


def test_a_line_has_the_request_that_it_belongs_to() -> None:
    """Whoever logs need not know it; what a call says itself goes before."""
    with pipe() as (read, write):
        handler = BackgroundHandler(write)
        handler.setFormatter(JsonLines())
        token = REQUEST.set(RequestScope(request_id="req_1", correlation_id="cor_1"))
        handler.handle(record())
        handler.handle(record(request_id="req_2"))
        REQUEST.reset(token)
        handler.handle(record("value %s", args=(object,)))
        handler.close()
        found = [json.loads(read.readline()) for _ in range(3)]
    assert [line.get("request_id") for line in found] == ["req_1", "req_2", None]
    assert found[0]["correlation_id"] == "cor_1"
    assert found[0]["event"] == "hello"
    assert found[0]["timestamp"].endswith("+00:00")
    assert found[2]["event"] == "value <class 'object'>"


def test_a_reader_that_is_gone_or_a_full_disk_costs_lines_alone() -> None:
    """They are counted; nothing is raised."""
    full = Path("/dev/full") if Path("/dev/full").exists() else Path(os.devnull)
    with pipe() as (read, broken), full.open("w") as disk:
        read.close()
        for stream in (broken, disk, io.StringIO(), None):
            handler = BackgroundHandler(stream)
            handler.handle(record())
            handler.close()
            assert handler.dropped == (0 if full == Path(os.devnull) and stream is disk else 1)


def test_nobody_waits_for_a_blocked_pipe() -> None:
    """A full pipe without a reader: a call takes microseconds, the queue is bounded, and the end comes all the same."""
    with pipe() as (read, write):
        handler = BackgroundHandler(write, waiting_max=1000)
        handler.setFormatter(JsonLines())
        began_s = time.monotonic()
        for _ in range(5000):
            handler.handle(record("x" * 200))
        assert time.monotonic() - began_s < 2.0
        assert handler.dropped > 0
        handler.close()
        assert time.monotonic() - began_s < 4.0
        os.set_blocking(read.fileno(), False)
        while handler._writer.is_alive():  # let it go on, and end
            with suppress(BlockingIOError):
                os.read(read.fileno(), 2**16)
            time.sleep(0.005)


def test_levels_of_single_loggers(capfd: pytest.CaptureFixture[str]) -> None:
    """One part may say more than the others, another less."""
    root, before = logging.getLogger(), logging.getLogger().handlers[:]
    levels = {"manent.test.quiet": "error", "manent.test.loud": "debug"}
    try:
        configure_logging(level="info", log_format="json", levels=levels)
        for name in ("manent.test", "manent.test.quiet", "manent.test.loud"):
            logging.getLogger(name).debug("debug")
            logging.getLogger(name).info("info")
        stop_logging()
    finally:
        root.handlers[:] = before
        logging.getLogger("manent").setLevel(logging.NOTSET)
        for name in levels:
            logging.getLogger(name).setLevel(logging.NOTSET)
    told = [(line["logger"], line["event"]) for line in map(json.loads, capfd.readouterr().err.splitlines())]
    assert told == [("manent.test", "info"), ("manent.test.loud", "debug"), ("manent.test.loud", "info")]


def test_what_a_runner_says_is_in_the_servers_log(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """With the request's ids, in pieces as they come; its libraries' chatter is not, nor what an error says."""
    request = Generate(id=7, token_ids=(1,), parameters=parameters(), request_id="req_1", correlation_id="cor_1")
    runner_log.say("it failed", request=request, error=failure(ValueError(CANARY)))
    written = f"chatter {CANARY}\n{capsys.readouterr().err}manent: not JSON\nmanent: {{}}\n".encode()
    lines = runner_log.RunnerLines(42)
    for byte in written:
        lines.feed(bytes([byte]))
    (said,) = caplog.records
    assert (said.getMessage(), said.__dict__["request_id"], said.__dict__["correlation_id"]) == (
        "runner 42: it failed",
        "req_1",
        "cor_1",
    )
    assert "ValueError" in said.__dict__["runner_exception"]
    assert CANARY not in JsonLines().format(said)


DEFECTS = """
import os, sys, threading
os.close(0)
from manent.adapters.logs import setup
setup.fill_standard_streams()
setup.configure_logging(level="info", log_format="json")
setup.log_defects()
def fail(*_):
    raise ValueError("%s")
thread = threading.Thread(target=fail)
thread.start()
thread.join()
type("Odd", (), {"__del__": fail})()
setup.stop_logging()
sys.stderr.write(f"{os.fstat(0).st_rdev == os.stat(os.devnull).st_rdev}\\n")
fail()
"""


def test_defects_that_nobody_catches_are_told_without_their_words() -> None:
    """Of a thread, of a finalizer and of the main program, where Python itself would write what they say."""
    done = subprocess.run(
        [sys.executable, "-c", DEFECTS % CANARY], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert CANARY not in done.stdout + done.stderr
    first, second, filled, *rest = done.stderr.splitlines()
    assert json.loads(first)["event"] == "an exception in a thread was caught by nobody"
    assert json.loads(second)["event"] == "an exception in a finalizer was caught by nobody"
    assert (filled, rest[-1], len(rest) > 1) == ("True", "ValueError", True)


@pytest.mark.parametrize(("error", "is_told"), [(InvalidValue("x"), False), (ValueError("x"), True)])
def test_streams_that_end_in_a_known_error_are_no_news_of_sanics(
    capfd: pytest.CaptureFixture[str], *, error: Exception, is_told: bool
) -> None:
    """Manent's own line tells of them; of a defect both do."""
    root, before = logging.getLogger(), logging.getLogger().handlers[:]
    sanic, filters = logging.getLogger("sanic.error"), logging.getLogger("sanic.error").filters[:]
    try:
        configure_logging(level="info", log_format="json")
        sanic.error("the stream cannot go on", exc_info=failure(error))
        stop_logging()
    finally:
        root.handlers[:], sanic.filters[:] = before, filters
        logging.getLogger("manent").setLevel(logging.NOTSET)
    assert ("could not answer as usual" in capfd.readouterr().err) is is_told
