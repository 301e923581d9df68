"""One real server with the real starter model for all end-to-end tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from openai import OpenAI

from tests.support.server import Server, prepare_home, serving

MODELS = """
[[models]]
id = "smollm2-135m-instruct"
aliases = ["default"]

[[models]]
id = "second"
path = "{second}"
"""


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, starter_model: Path, four_bit_model: Path) -> Iterator[Server]:
    """A server that answers with the starter model, and has a second one: the same with 4-bit weights."""
    home = prepare_home(tmp_path_factory.mktemp("server") / "home", starter_model)
    (home / "models.toml").write_text(MODELS.format(second=four_bit_model), encoding="utf-8")
    with serving(home) as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[OpenAI]:
    """openai-python, unmodified but for its base_url."""
    with server.client() as made:
        yield made
