"""The environments of real clients, which ``make clients`` sets up: nothing in them binds the server's own."""

from __future__ import annotations

import re
import sys
from pathlib import Path

ENVIRONMENTS = Path(sys.prefix)
PYTHONS = {
    "clients": re.compile(r"^(?:from|import) (?:agents|langchain_openai|litellm)\b", re.MULTILINE),
    "llamaindex": re.compile(r"^(?:from|import) llama_index\b", re.MULTILINE),
}
NODE = ENVIRONMENTS / "clients" / "bin" / "node"
NODE_PACKAGES = ENVIRONMENTS / "node"

# Nothing is asked of anybody but the server: no telemetry, no price lists, no model hub; what tries fails at once.
OFFLINE = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "OPENAI_AGENTS_DISABLE_TRACING": "1",
    "LANGSMITH_TRACING": "false",
    "HF_HUB_OFFLINE": "1",
    "HTTP_PROXY": "http://127.0.0.1:9",
    "HTTPS_PROXY": "http://127.0.0.1:9",
    "NO_PROXY": "127.0.0.1,localhost",
}


def there(program: Path) -> Path:
    """``program``, if the environments are set up."""
    assert program.exists(), f"{program} is not there; `make clients` sets up the clients"
    return program


def python_for(code: str) -> Path:
    """The Python that has what ``code`` imports."""
    named = (name for name, imports in PYTHONS.items() if imports.search(code))
    name = next(named, None)
    return Path(sys.executable) if name is None else there(ENVIRONMENTS / name / "bin" / "python")
