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

[[models]]
id = "all-minilm-l6-v2"
type = "embedding"
path = "{embedding}"
"""


@pytest.fixture(scope="session")
def server(
    tmp_path_factory: pytest.TempPathFactory, starter_model: Path, four_bit_model: Path, embedding_model: Path
) -> Iterator[Server]:
    """A server that answers with the starter model, and has the same with 4-bit weights, and an embedding model."""
    home = prepare_home(tmp_path_factory.mktemp("server") / "home", starter_model)
    (home / "models" / embedding_model.name).symlink_to(embedding_model)
    registry = MODELS.format(second=four_bit_model, embedding=embedding_model)
    (home / "models.toml").write_text(registry, encoding="utf-8")
    with serving(home) as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[OpenAI]:
    """openai-python, unmodified but for its base_url."""
    with server.client() as made:
        yield made
