"""Homes for servers that are going to be hurt."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.server import prepare_home


@pytest.fixture
def home(tmp_path: Path, starter_model: Path) -> Path:
    """A home of its own for each test, with the starter model."""
    return prepare_home(tmp_path / "home", starter_model)
