"""Two servers for real clients: ``manent serve`` with real models, and one in this process whose engine is scripted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.server import Server, prepare_home, serving
from tests.support.talking_model import make_talking_model

MODELS = """
[[models]]
id = "smollm2-135m-instruct"
aliases = ["default"]

[[models]]
id = "caller"
path = "{caller}"

[[models]]
id = "all-minilm-l6-v2"
type = "embedding"
path = "{embedding}"
"""
CALL = '<tool_call>{"name":"get_weather","arguments" : {"location": "Paris"} }</tool_call>'
"""What the model ``caller`` says to everything: a call, where the function may be called."""


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, starter_model: Path, embedding_model: Path) -> Iterator[Server]:
    """A server with the starter model, one that calls a function by itself, and one for embeddings."""
    folder = tmp_path_factory.mktemp("clients")
    home = prepare_home(folder / "home", starter_model)
    caller = make_talking_model(folder / "caller", starter=starter_model, text=CALL)
    (home / "models.toml").write_text(MODELS.format(caller=caller, embedding=embedding_model), encoding="utf-8")
    with serving(home) as running:
        yield running
