"""One real server with the real starter model for all end-to-end tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from openai import OpenAI

from tests.support.server import Server, prepare_home, serving
from tests.support.tiny_vision import make_tiny_vision_model

MODELS = """
[[models]]
id = "smollm2-135m-instruct"
aliases = ["default"]

[[models]]
id = "second"
path = "{second}"

[[models]]
id = "vision"
path = "{vision}"
type = "vlm"
"""


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, starter_model: Path, four_bit_model: Path) -> Iterator[Server]:
    """A server that answers with the starter model, and has a second one: the same with 4-bit weights.

    A third, tiny one reads images.
    """
    home = prepare_home(tmp_path_factory.mktemp("server") / "home", starter_model)
    vision = make_tiny_vision_model(home / "models" / "tiny-vision", starter=starter_model)
    (home / "models.toml").write_text(MODELS.format(second=four_bit_model, vision=vision), encoding="utf-8")
    with serving(home) as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[OpenAI]:
    """openai-python, unmodified but for its base_url."""
    with server.client() as made:
        yield made
