"""What several answers about replays have in common on the wire."""

from __future__ import annotations

from manent.adapters.http.wire_replay import Sampling
from manent.adapters.http.wire_responses import ForkOf
from manent.domain.generation import SamplingParameters
from manent.domain.replay_events import Fork


def fork_answer(fork: Fork | None) -> ForkOf | None:
    """Where something branched off."""
    return None if fork is None else ForkOf(session_id=fork.session_id, version=fork.version)


def sampling_answer(parameters: SamplingParameters) -> Sampling:
    """Effective parameters."""
    return Sampling(
        temperature=parameters.temperature,
        top_p=parameters.top_p,
        max_tokens=parameters.max_tokens,
        seed=parameters.seed,
        stop=list(parameters.stop),
    )
