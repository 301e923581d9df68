"""What scripts say."""

from __future__ import annotations

from manent.adapters.inference.script import Playing, Script, Thought, token_of
from manent.domain.generation import SamplingParameters


def test_text_that_was_held_back_has_the_log_probability_of_the_token_it_comes_with() -> None:
    """Also where that is one of reasoning, which has no text of its own."""
    asked = SamplingParameters(temperature=1, top_p=1, max_tokens=9, seed=1, stop=("ab",), logprobs=True)
    playing = Playing(Script(pieces=("a", Thought("hm"))), asked, 0)
    held, last = playing.next(), playing.next()
    assert (held.text, held.logprobs, last.text) == ("", (), "a")
    assert [found.chosen.token_id for found in last.logprobs] == list(last.token_ids) == [token_of("hm")]
