"""Every example of the documents runs as it stands, against a real server; links lead somewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from manent.adapters.http.parameter_docs import render_page
from manent.adapters.inference.registry import load_registry
from tests.support.command_server import quick_command
from tests.support.server import Server, environment

REPOSITORY = Path(__file__).parents[2]
DOCUMENTS = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)
NAMED_TEST = re.compile(r"(tests/[\w/]+\.py)::(\w+)")
LINK = re.compile(r"\[[^]]+\]\(([^)#\s]+)(?:#[^)]*)?\)")
# These start servers or run everything: CI runs the two commands themselves, and other tests start servers.
NOT_RUN = ("make ", "manent serve", "apt-get")
# Its clients have environments of their own, in which tests/clients runs what it shows.
RUN_ELSEWHERE = REPOSITORY / "docs" / "how-to" / "clients.md"

EXAMPLES = [
    pytest.param(document, language, code, id=f"{document.relative_to(REPOSITORY)}-{number}")
    for document in DOCUMENTS
    if document != RUN_ELSEWHERE
    for number, (language, code) in enumerate(BLOCK.findall(document.read_text(encoding="utf-8")))
    if not any(command in code for command in NOT_RUN)
]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder that looks like a checkout after ``make install``: its commands are where the documents say."""
    folder = tmp_path_factory.mktemp("checkout")
    (folder / ".venv" / "bin").mkdir(parents=True)
    with quick_command(folder / ".venv" / "bin" / "manent"):
        yield folder


@pytest.mark.parametrize(("document", "language", "code"), EXAMPLES)
def test_docs_examples_run(server: Server, checkout: Path, document: Path, language: str, code: str) -> None:
    """A reader who pastes an example sees it work."""
    port = str(urlsplit(server.address).port)
    program = code.replace("127.0.0.1:9123", f"127.0.0.1:{port}")
    command = ["bash", "-euo", "pipefail", "-c", program] if language == "bash" else [sys.executable, "-c", program]
    done = subprocess.run(
        command,
        env={**environment(server.home, port=port), "PATH": os.environ["PATH"]},
        cwd=checkout,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, f"{document}: {done.stderr}"
    assert '"error":{' not in done.stdout, f"{document}: {done.stdout}"
    assert done.stdout.strip() or "create(" in program, f"{document}: it prints nothing"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_docs_links_lead_somewhere(document: Path) -> None:
    """A relative link names a file or folder that is there."""
    for target in LINK.findall(document.read_text(encoding="utf-8")):
        if not urlsplit(target).scheme:
            assert (document.parent / target).exists(), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_docs_name_tests_that_exist(document: Path) -> None:
    """What is said to be shown by a test is."""
    for file, name in NAMED_TEST.findall(document.read_text(encoding="utf-8")):
        assert re.search(rf"^(async )?def {name}\(", (REPOSITORY / file).read_text(encoding="utf-8"), re.MULTILINE), (
            name
        )


def test_docs_example_registry_is_read() -> None:
    """models.toml at the top shows fields that exist."""
    registry = load_registry(REPOSITORY / "models.toml", Path("/nowhere"))
    assert registry.resolve("default").model_id == "smollm2-135m-instruct"


def test_docs_start_with_the_two_commands() -> None:
    """The first code of the README is how to serve and how to test."""
    first = BLOCK.search((REPOSITORY / "README.md").read_text(encoding="utf-8"))
    assert first is not None
    assert [line.split("  ")[0].split("#")[0].strip() for line in first[2].splitlines()] == ["make serve", "make test"]


def test_docs_parameters_are_those_of_the_code() -> None:
    """docs/reference/parameters.md is made from the table that decides."""
    assert (REPOSITORY / "docs/reference/parameters.md").read_text(encoding="utf-8") == render_page()
