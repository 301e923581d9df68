"""The circuit breaker of one model: what failed, who is refused for it, and who may try again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

from manent.adapters.inference.supervision import NoRoom
from manent.domain.breaker import Breaker, BreakerPolicy, Circuit
from manent.domain.errors import DomainError, ModelUnavailable

_TRIAL_RETRY_S = 1.0


class ModelCircuit:
    """Belongs to one event loop; its clock is the system's monotonic one, finer than the loop's."""

    def __init__(self, model_id: str, policy: BreakerPolicy) -> None:
        self._model_id = model_id
        self._policy = policy
        self._breaker = Breaker()
        self._refusal: type[DomainError] = ModelUnavailable
        self._on_trial = False

    @property
    def is_open(self) -> bool:
        """Whether the model is kept out."""
        return self.state is Circuit.OPEN

    @property
    def state(self) -> Circuit:
        """Whether requests may go on to the model."""
        return self._breaker.circuit(monotonic())

    @property
    def wait_s(self) -> float:
        """For how long it still is."""
        return self._breaker.wait_s(monotonic())

    @property
    def failures(self) -> int:
        """How many failures there were in a row."""
        return self._breaker.failures

    @property
    def reason(self) -> str:
        """What failed last; empty where nothing did since it worked."""
        return self._breaker.reason

    def check(self) -> None:
        """Refuse while the circuit is open.

        Raises:
            ModelLoadError, InsufficientMemory: the last load failed a moment ago, for this reason.
            ModelUnavailable: the model crashed again and again.
        """
        if not self.is_open:
            return
        wait_s = self.wait_s
        if not self._breaker.crashed:
            raise self._refusal(self.reason, retry_after_s=wait_s)
        raise ModelUnavailable(
            f"model {self._model_id} failed {self.failures} times in a row, last because {self.reason}; "
            f"it is tried again in {wait_s:.0f} s",
            retry_after_s=wait_s,
        )

    @contextmanager
    def trial(self) -> Iterator[None]:
        """Let a request through; of those that come after a time of suspension, one at a time.

        Raises:
            ModelLoadError, InsufficientMemory, ModelUnavailable: as ``check``, or somebody else is trying it now.
        """
        self.check()
        is_trial = self._breaker.crashed and self._breaker.circuit(monotonic()) is Circuit.HALF_OPEN
        if is_trial and self._on_trial:
            raise ModelUnavailable(
                f"model {self._model_id} failed {self.failures} times in a row, and one request is trying it now",
                retry_after_s=_TRIAL_RETRY_S,
            )
        self._on_trial = self._on_trial or is_trial
        try:
            yield
        finally:
            if is_trial:
                self._on_trial = False

    def load_failed(self, error: DomainError) -> None:
        """A load failed. Whether there is room is looked at anew soon: nobody is locked out of what is free again."""
        before = Breaker() if isinstance(error, NoRoom) else self._breaker
        self._breaker = before.load_failed(error.message, now_s=monotonic(), policy=self._policy)
        self._refusal = type(error)

    def loaded(self) -> None:
        """A load succeeded."""
        self._breaker = self._breaker.loaded()

    def crashed(self, reason: str) -> None:
        """A loaded model crashed."""
        self._breaker = self._breaker.runner_crashed(reason, now_s=monotonic(), policy=self._policy)

    def forgive(self) -> None:
        """A request was answered, or an operator wants another attempt: what failed before does not count."""
        self._breaker = Breaker()
