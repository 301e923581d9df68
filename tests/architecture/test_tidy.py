"""The house rules that no linter knows."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from manent.app.settings import PREFIX, Settings

REPOSITORY = Path(__file__).parents[2]
SOURCES = sorted(
    path
    for folder in ("domain", "adapters", "app", "migrations")
    for path in (REPOSITORY / folder).rglob("*.py")
    if "__pycache__" not in path.parts
)
TESTS = sorted((REPOSITORY / "tests").rglob("test_*.py"))
FILE_LINES_MAX = 300
FUNCTION_LINES_MAX = 60


def name(path: Path) -> str:
    """A path as a test's id."""
    return str(path.relative_to(REPOSITORY))


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_files_and_functions_stay_small(path: Path) -> None:
    """A larger one says that two things live in it."""
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= FILE_LINES_MAX
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < FUNCTION_LINES_MAX, node.name


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_every_file_says_what_lives_in_it(path: Path) -> None:
    """A module opens with a docstring."""
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("path", TESTS, ids=name)
def test_every_test_says_what_it_proves(path: Path) -> None:
    """A test has a sentence."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            assert ast.get_docstring(node), node.name


EXCEPTION = re.compile(r"#\s*(?:noqa|type:\s*ignore)(?!\[|:)|#\s*(?:noqa: [A-Z0-9, ]+|type: ignore\[[a-z, -]+\])\s*$")


@pytest.mark.parametrize("path", [*SOURCES, *TESTS], ids=name)
def test_every_exception_to_a_rule_has_its_reason(path: Path) -> None:
    """``noqa`` and ``type: ignore`` name the rule, and say why on the same line."""
    found = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if EXCEPTION.search(line)]
    assert path.name == "test_tidy.py" or found == []


def test_the_domain_imports_the_standard_library_alone() -> None:
    """No I/O library can creep into the rules."""
    for path in (REPOSITORY / "domain").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                modules = [node.module or ""]
            for module in modules:
                inside = module.startswith("manent.domain")
                assert inside or module.split(".")[0] in sys.stdlib_module_names, f"{path}: {module}"


@pytest.mark.parametrize("folder", ["domain", "adapters", "app", "migrations"])
def test_folders_are_not_imported_by_their_bare_names(folder: str) -> None:
    """``import domain`` is refused, so that nothing exists twice under two names."""
    done = subprocess.run(
        [sys.executable, "-c", f"import {folder}"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert f"import manent.{folder}, not {folder}" in done.stderr


def test_the_example_environment_lists_every_setting_with_its_default() -> None:
    """.env.example is complete, and its values are the defaults."""
    lines = (REPOSITORY / ".env.example").read_text(encoding="utf-8").splitlines()
    listed = dict(line.lstrip("#").strip().split("=", 1) for line in lines if re.match(r"#?\s*MANENT_\w+=", line))
    expected = {
        PREFIX + field.upper(): "" if info.default is None else str(info.default)
        for field, info in Settings.model_fields.items()
    }
    assert listed == expected
    for field, info in Settings.model_fields.items():
        assert info.description, field


def test_the_golden_file_only_grows() -> None:
    """Lines that were committed once stay: what they hold is in somebody's log."""
    committed = subprocess.run(
        ["git", "show", "HEAD:tests/golden/events.jsonl"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    now = (REPOSITORY / "tests/golden/events.jsonl").read_text(encoding="utf-8").splitlines()
    assert now[: len(committed.stdout.splitlines())] == committed.stdout.splitlines()
