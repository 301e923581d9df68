"""Real clients, each in its own environment, against real servers: ``make test-clients`` runs all, ``make test`` the main.

Their own test runners run them (``suites`` and ``node``); what stands for a client is marked ``representative`` there.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path

import pytest

from tests.support.dialogue import dialogue_engine
from tests.support.http import running_server
from tests.support.server import Server

HERE = Path(__file__).parent
ENVIRONMENTS = Path(sys.prefix)
ALL = os.environ.get("TEST_CLIENTS") == "all"
LIMIT_S = 1200 if ALL else 170
# Nothing is asked of anybody but the servers: no telemetry, no price lists, no model hub; what tries fails at once.
OFFLINE = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_TELEMETRY": "False",
    "OPENAI_AGENTS_DISABLE_TRACING": "1",
    "LANGSMITH_TRACING": "false",
    "HF_HUB_OFFLINE": "1",
    "AI_SDK_TELEMETRY_DISABLED": "1",
    "HTTP_PROXY": "http://127.0.0.1:9",
    "HTTPS_PROXY": "http://127.0.0.1:9",
    "NO_PROXY": "127.0.0.1,localhost",
}


def python(environment: str, suite: str) -> list[str]:
    """The command that runs a suite of a Python client."""
    chosen = [] if ALL else ["-m", "representative"]
    arguments = ["-m", "pytest", "-c", str(HERE / "suites" / "pytest.ini"), *chosen]
    return [f"{environment}/bin/python", *arguments, str(HERE / "suites" / f"{suite}_suite.py")]


def node(suite: str) -> list[str]:
    """The command that runs a suite of a Node client; the packages are beside the link to the tests."""
    chosen = [] if ALL else ["--test-name-pattern=representative"]
    links = ["--preserve-symlinks", "--preserve-symlinks-main"]
    return ["clients/bin/node", *links, "--test", "--test-reporter=tap", *chosen, f"node/tests/{suite}.test.mjs"]


SUITES = {
    "langchain": python("clients", "langchain"),
    "litellm": python("clients", "litellm"),
    "agents": python("clients", "agents"),
    "llamaindex": python("llamaindex", "llamaindex"),
    "openai-node": node("openai"),
    "ai-sdk": node("ai_sdk"),
}
PASSED = re.compile(r"^# pass [1-9]|\b[1-9]\d* passed\b", re.MULTILINE)


@pytest.mark.timeout(LIMIT_S + 30)
@pytest.mark.parametrize("command", SUITES.values(), ids=SUITES)
async def test_a_real_client_finds_what_it_expects(server: Server, command: list[str]) -> None:
    """The client's own runner says that everything passed, and that something did."""
    program = ENVIRONMENTS / command[0]
    assert program.exists(), f"{program} is not there; `make clients` sets up the clients"
    async with running_server(engine=dialogue_engine()) as scripted:
        ended = await asyncio.create_subprocess_exec(
            program,
            *command[1:],
            cwd=ENVIRONMENTS,
            env={**os.environ, **OFFLINE, "CLIENTS_REAL": server.address, "CLIENTS_SCRIPTED": scripted.address},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            async with asyncio.timeout(LIMIT_S):
                said = (await ended.communicate())[0].decode(errors="replace")
        finally:
            if ended.returncode is None:
                ended.kill()
                await ended.wait()
    print(said)  # noqa: T201  # pytest shows it where the test fails, and in `make test-clients`
    assert (ended.returncode, PASSED.search(said) is not None) == (0, True), said[-6000:]
