"""Every example of the documents runs as it stands, against a real server; links lead somewhere."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from manent.adapters.http.parameter_docs import render_page
from manent.adapters.inference.registry import load_registry
from manent.app.settings import PREFIX, Settings
from tests.support.command_server import quick_command
from tests.support.server import Server, environment

REPOSITORY = Path(__file__).parents[2]
DOCUMENTS = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SETTING = re.compile(r"""\b(MANENT_\w+)=('[^']*'|\S*)""")
NAMED_TEST = re.compile(r"(tests/[\w/]+\.py)::(\w+)")
LINK = re.compile(r"\[[^]]+\]\(([^)#\s]+)(?:#[^)]*)?\)")
# What is run is what is written in these, less what has one of the words below.
RUN = ("bash", "python")
NOT_RUN = {
    "make ": "CI runs these commands themselves",
    "manent serve": "other tests start servers; the settings are judged here",
}
# Why a block in another language, or in none, is not run.
REASONS = {
    "15 3 * * *": "a line of a crontab; what it calls is run further up",
    "docker compose": "it needs Docker; tests/unit/test_deploy.py reads the files",
    "x-ratelimit-limit-requests": "an answer",
    "$ manent projections": "answers; tests/integration/test_projections_command.py has the commands",
    "CREATE ROLE": "tests/faults/test_postgres_log.py makes the roles",
    "manent models add": "its model is not there; tests/integration/test_model_import.py adds one",
    "MANENT_PLUGINS": "tests/integration/test_plugins.py starts it",
    "scrape_configs": "a part of Prometheus's configuration",
    "new WebSocket(": "a browser's; tests/integration/http/test_socket_access.py opens one so",
    "[[models]]": "a part of models.toml, read here",
    '"backend": "ring"': "a file of hosts, for tests/unit/test_shard_hosts.py",
}
# Its clients have environments of their own, in which tests/clients runs what it shows.
RUN_ELSEWHERE = REPOSITORY / "docs" / "how-to" / "clients.md"

EXAMPLES = [
    pytest.param(document, language, code, id=f"{document.relative_to(REPOSITORY)}-{number}")
    for document in DOCUMENTS
    if document != RUN_ELSEWHERE
    for number, (language, code) in enumerate(BLOCK.findall(document.read_text(encoding="utf-8")))
    if language in RUN and not any(command in code for command in NOT_RUN)
]
NOT_EXAMPLES = [
    pytest.param(language, code, id=f"{document.relative_to(REPOSITORY)}-{number}")
    for document in DOCUMENTS
    if document != RUN_ELSEWHERE
    for number, (language, code) in enumerate(BLOCK.findall(document.read_text(encoding="utf-8")))
    if language not in RUN or any(command in code for command in NOT_RUN)
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


@pytest.mark.parametrize(("language", "code"), NOT_EXAMPLES)
def test_docs_blocks_that_are_not_run_are_right(language: str, code: str, tmp_path: Path) -> None:
    """There is a reason why each is not run; settings in it are such as the server takes, and files can be read."""
    assert any(words in code for words in (*NOT_RUN, *REASONS)), "run it, or say why not"
    given = {name.removeprefix(PREFIX).lower(): value.strip("'") for name, value in SETTING.findall(code)}
    assert given.keys() <= Settings.model_fields.keys()
    Settings(_env_file=None, **given)
    if language == "toml":
        (tmp_path / "models.toml").write_text(code, encoding="utf-8")
        (tmp_path / "hosts.json").write_text("{}", encoding="utf-8")
        assert load_registry(tmp_path / "models.toml", tmp_path).models
    if language == "json":
        assert json.loads(code)
    if language == "yaml":
        assert yaml.safe_load(code)


def test_docs_reasons_are_needed() -> None:
    """What names no block any more is taken out, and the tests that the reasons name are there."""
    blocks = [str(example.values[1]) for example in NOT_EXAMPLES]
    for words, reason in (NOT_RUN | REASONS).items():
        assert any(words in code for code in blocks), words
        assert all((REPOSITORY / file).exists() for file in re.findall(r"tests/[\w/]+\.py", reason)), reason


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
