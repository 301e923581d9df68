"""A restart: conversations that the log knows go on without being evaluated again, even without the disk cache."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest
from openai.types.chat import ChatCompletionMessageParam

from tests.support.server import Server, serving
from tests.support.tiny_models import make_tiny_model

REGISTRY = '[[models]]\nid = "tiny"\npath = "tiny"\naliases = ["default"]\nauto_load = true\n'
SYSTEM: ChatCompletionMessageParam = {"role": "system", "content": "You are a keeper of lighthouses. " * 12}
WAIT_S = 60.0


@pytest.fixture
def home(starter_model: Path, tmp_path: Path) -> Path:
    """A home whose one model is loaded at the start."""
    make_tiny_model(tmp_path / "models" / "tiny", starter=starter_model, seed=1)
    (tmp_path / "models.toml").write_text(REGISTRY, encoding="utf-8")
    return tmp_path


def cached_tokens(server: Server, *messages: ChatCompletionMessageParam) -> tuple[int, int]:
    """Add to the session: how much of the prompt was there already, and how long it is."""
    answer = server.client().chat.completions.create(
        model="default",
        messages=messages,
        max_tokens=4,
        extra_body={"session_id": "lighthouse", "session_mode": "append"},
    )
    assert answer.usage is not None
    assert answer.usage.prompt_tokens_details is not None
    return answer.usage.prompt_tokens_details.cached_tokens or 0, answer.usage.prompt_tokens


@pytest.mark.parametrize("sessions", [4, 0])
@pytest.mark.long
def test_a_conversation_of_the_log_is_warm_after_a_restart(home: Path, sessions: int) -> None:
    """All but the new question is known, though the disk cache is gone; with 0 nothing is evaluated ahead."""
    with serving(home) as server:
        assert cached_tokens(server, SYSTEM, {"role": "user", "content": "How high is it?"})[0] == 0
        server.stop()
    shutil.rmtree(home / "cache" / "prefix")
    with serving(home, prefix_warm_sessions=sessions) as server:
        until_s = time.monotonic() + WAIT_S
        while sessions and not any("is warm for 1 conversations" in line for line in server.output):
            assert time.monotonic() < until_s, "".join(server.output)
            time.sleep(0.05)
        cached, prompt = cached_tokens(server, {"role": "user", "content": "And how old?"})
    assert cached > 0.8 * prompt if sessions else cached == 0
