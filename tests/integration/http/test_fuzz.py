"""The API against its own description: whatever that allows, and what it does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.fuzzing import fuzz


@pytest.mark.timeout(300)
def test_nothing_comes_back_that_is_not_in_the_description(tmp_path: Path) -> None:
    """No 500, no status, header, type or body but those described; what the schemas forbid is refused, every time."""
    found = fuzz(
        tmp_path,
        [
            "--max-examples=4",
            "--seed=1",
            "--generation-deterministic",
            "--phases=coverage,fuzzing,stateful",
            "--no-shrink",
            "--warnings=off",
        ],
    )
    assert found.returncode == 0, found.stdout[-8000:]
