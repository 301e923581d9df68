"""One real server with the real starter model for all end-to-end tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from openai import OpenAI

from tests.support.server import Server, StartedServer, prepare_home
from tests.support.tiny_vision import make_tiny_vision_model

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

[[models]]
id = "vision"
path = "{vision}"
type = "vlm"
"""


@pytest.fixture(scope="session")
def server(
    tmp_path_factory: pytest.TempPathFactory, starter_model: Path, four_bit_model: Path, embedding_model: Path
) -> Iterator[Server]:
    """A server with the starter model, the same with 4-bit weights, an embedding model, and one that reads images."""
    home = prepare_home(tmp_path_factory.mktemp("server") / "home", starter_model)
    (home / "models" / embedding_model.name).symlink_to(embedding_model)
    vision = make_tiny_vision_model(home / "models" / "tiny-vision", starter=starter_model)
    registry = MODELS.format(second=four_bit_model, embedding=embedding_model, vision=vision)
    (home / "models.toml").write_text(registry, encoding="utf-8")
    with closing(StartedServer(home)) as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[OpenAI]:
    """openai-python, unmodified but for its base_url."""
    with server.client() as made:
        yield made
