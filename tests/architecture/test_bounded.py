"""The suite itself: a test that hangs or crashes its process fails alone, is shown, and stops nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]

HANGS = """
import os
import time

import pytest


@pytest.fixture
def endless():
    yield
    time.sleep(60)


@pytest.mark.timeout(2)
def test_hangs():
    time.sleep(60)


@pytest.mark.timeout(2)
def test_fails_and_hangs_in_its_teardown(endless):
    assert False


def test_goes_on():
    pass
"""
CRASHES = "import os\n\ndef test_crashes():\n    os._exit(1)\n"
PASSES = "def test_passes():\n    pass\n"


def test_hangs_and_crashes_fail_alone(tmp_path: Path) -> None:
    """What hangs is ended with its stacks, also after a failure, and what was to come after a crash still runs."""
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["tests.support.bounded"]\n')
    for name, text in {"a": PASSES, "b": PASSES, "c": HANGS, "d": CRASHES, "e": PASSES}.items():
        (tmp_path / f"test_{name}.py").write_text(text)
    alone = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    own = [
        "-p",
        "xdist.plugin",
        "-c",
        "/dev/null",
        "--rootdir",
        str(tmp_path),
        "-o",
        f"pythonpath={REPOSITORY}",
        "-p",
        "no:cacheprovider",
    ]
    two = ["-n", "2", "--dist", "loadfile", "--no-loadscope-reorder"]
    command = [sys.executable, "-m", "pytest", *own, *two, str(tmp_path)]
    ran = subprocess.run(command, env=alone, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 1
    assert "in test_hangs" in ran.stderr
    assert "in endless" in ran.stderr
    assert "4 failed, 4 passed" in ran.stdout
