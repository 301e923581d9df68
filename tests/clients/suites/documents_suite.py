"""What the documentation shows of the clients of this environment runs as it stands."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from addresses import REAL

DOCUMENT = Path(__file__).parents[3] / "docs" / "how-to" / "clients.md"
CLIENTS = {"clients": {"openai", "langchain_openai", "litellm", "agents"}, "llamaindex": {"llama_index"}}
HERE = CLIENTS[Path(sys.prefix).name]
BLOCKS = {
    re.findall(r"^(?:from|import) (\w+)", code, re.MULTILINE)[0]: code
    for code in re.findall(r"^```python\n(.*?)^```", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
}


def test_every_example_has_an_environment() -> None:
    """None is left out because nobody said where it runs."""
    assert BLOCKS.keys() == set().union(*CLIENTS.values())


@pytest.mark.representative
@pytest.mark.parametrize("client", sorted(HERE))
def test_what_the_document_shows_runs(client: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A reader who pastes it sees an answer."""
    code = BLOCKS[client].replace("http://127.0.0.1:9123", REAL)
    exec(compile(code, client, "exec"), {"__name__": "pasted"})  # noqa: S102 (that is what a reader does with it)
    assert capsys.readouterr().out.strip()
