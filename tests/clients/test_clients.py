"""Real clients, each in an environment of its own, against real servers, run by their own test runners.

``make test-clients`` runs all of ``suites`` and ``node``; ``make test`` runs what is marked ``representative`` there.
"""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path

import pytest

from tests.support.clients import ENVIRONMENTS, NODE, NODE_PACKAGES, OFFLINE, there
from tests.support.dialogue import dialogue_engine
from tests.support.http import running_server
from tests.support.server import Server

HERE = Path(__file__).parent
ALL = os.environ.get("TEST_CLIENTS") == "all"
LIMIT_S = 1200 if ALL else 170


def python(environment: str, suite: str) -> list[Path | str]:
    """The command that runs a suite of a Python client."""
    chosen = [] if ALL else ["-m", "representative"]
    arguments = ["-m", "pytest", "-c", str(HERE / "suites" / "pytest.ini"), *chosen]
    return [ENVIRONMENTS / environment / "bin" / "python", *arguments, HERE / "suites" / f"{suite}_suite.py"]


def node(suite: str) -> list[Path | str]:
    """The command that runs a suite of a Node client; the packages are beside the link to the tests."""
    chosen = [] if ALL else ["--test-name-pattern=representative"]
    links = ["--preserve-symlinks", "--preserve-symlinks-main"]
    tests = NODE_PACKAGES / "tests" / f"{suite}.test.mjs"
    return [NODE, *links, "--test", "--test-reporter=tap", *chosen, tests]


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
async def test_a_real_client_finds_what_it_expects(server: Server, command: list[Path | str]) -> None:
    """The client's own runner says that everything passed, and that something did."""
    there(Path(command[0]))
    async with running_server(engine=dialogue_engine()) as scripted:
        ended = await asyncio.create_subprocess_exec(
            *command,
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
