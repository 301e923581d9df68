"""Real clients, each in an environment of its own, against real servers, run by their own test runners.

``make test-clients`` runs all of ``suites`` and ``node``; ``make test`` runs what is marked ``representative`` there.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path

import pytest

from manent.adapters.http.context import HttpLimits
from manent.adapters.inference.script import Script
from tests.support.dialogue import dialogue_engine
from tests.support.http import running_server
from tests.support.server import Server

HERE = Path(__file__).parent
ENVIRONMENTS = Path(sys.prefix)
ALL = os.environ.get("TEST_CLIENTS") == "all"
LIMIT_S = 1700 if ALL else 400
# Nothing is asked of anybody but the servers: no telemetry, no price lists, no model hub; what tries fails at once.
OFFLINE = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "OPENAI_AGENTS_DISABLE_TRACING": "1",
    "LANGSMITH_TRACING": "false",
    "HF_HUB_OFFLINE": "1",
    "HTTP_PROXY": "http://127.0.0.1:9",
    "HTTPS_PROXY": "http://127.0.0.1:9",
    "NO_PROXY": "127.0.0.1,localhost",
}


def python(environment: str, *suites: str) -> list[Path | str]:
    """The command that runs suites of Python clients."""
    chosen = [] if ALL else ["-m", "representative"]
    files = [HERE / "suites" / f"{suite}_suite.py" for suite in suites]
    runner: list[Path | str] = ["-m", "pytest", "-c", HERE / "suites" / "pytest.ini"]
    return [ENVIRONMENTS / environment / "bin" / "python", *runner, *chosen, *files]


def node(*suites: str) -> list[Path | str]:
    """The command that runs suites of Node clients; the packages are beside the link to the tests."""
    chosen = [] if ALL else ["--test-name-pattern=representative"]
    files = [ENVIRONMENTS / "node" / "tests" / f"{suite}.test.mjs" for suite in suites]
    runner = ["--preserve-symlinks", "--preserve-symlinks-main", "--test", "--test-reporter=tap"]
    return [ENVIRONMENTS / "clients" / "bin" / "node", *runner, *chosen, *files]


def slow_script() -> Script:
    """An answer behind a long prefill: many keep-alives before the first token, and some between all others."""

    async def silent(delta: int) -> None:
        await asyncio.sleep(0.3 if delta == 0 else 0.05)

    return Script(pieces=("The", " answer", " took", " a", " while", "."), before_delta=silent)


RUNNERS = {
    "langchain, litellm, agents": python("clients", "langchain", "litellm", "agents", "documents"),
    "llamaindex": python("llamaindex", "llamaindex", "documents"),
    "openai-node, ai-sdk": node("openai", "responses", "streams", "ai_sdk", "documents"),
}
PASSED = re.compile(r"^# pass [1-9]|\b[1-9]\d* passed\b", re.MULTILINE)


@pytest.fixture(scope="module", autouse=True)
def environments() -> None:
    """Say what to do where they are missing."""
    missing = [str(command[0]) for command in RUNNERS.values() if not Path(command[0]).exists()]
    assert not missing, f"{missing[0]} is not there; `make clients` sets up the clients"


@pytest.mark.timeout(LIMIT_S + 60)
@pytest.mark.parametrize("command", RUNNERS.values(), ids=RUNNERS)
async def test_real_clients_find_what_they_expect(server: Server, command: list[Path | str]) -> None:
    """The clients' own runner says that everything passed, and that something did."""
    async with (
        running_server(engine=dialogue_engine()) as scripted,
        running_server(slow_script(), limits=HttpLimits(ping_interval_s=0.02)) as slow,
    ):
        servers = {
            "CLIENTS_REAL": server.address,
            "CLIENTS_SCRIPTED": scripted.address,
            "CLIENTS_SLOW": slow.address,
        }
        runner = await asyncio.create_subprocess_exec(
            *command,
            env={**os.environ, **OFFLINE, **servers},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            async with asyncio.timeout(LIMIT_S):
                said = (await runner.communicate())[0].decode(errors="replace")
        finally:
            if runner.returncode is None:
                runner.kill()
                await runner.wait()
    print(said)  # noqa: T201 (shown where the test fails, and by `make test-clients`)
    assert (runner.returncode, PASSED.search(said) is not None) == (0, True), said[-6000:]
