"""A circuit breaker: what failed is left alone for a while, and then asked by one, not by all."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

from manent.domain.breaker import Circuit
from manent.domain.projections import CacheUnavailable

_log = logging.getLogger("manent.projections")


class CircuitBreaker:
    """Closed as long as all goes well; after a failure open for ``period_s``, and then half open to one probe.

    So a server that is away costs those who were asking it when it went, and then one request a period.
    """

    def __init__(
        self,
        *,
        period_s: float,
        monotonic_s: Callable[[], float] = time.monotonic,
        consequence: str = "contexts come from the log",
    ) -> None:
        self._period_s = period_s
        self._consequence = consequence
        self._monotonic_s = monotonic_s
        self._open_until_s: float | None = None
        self._probing = False

    @property
    def is_open(self) -> bool:
        """Whether the last that was heard is a failure."""
        return self._open_until_s is not None

    @property
    def state(self) -> Circuit:
        """Whether the next one may try, and if so whether that is a probe."""
        if self._open_until_s is None:
            return Circuit.CLOSED
        return Circuit.HALF_OPEN if self._probing or self._monotonic_s() >= self._open_until_s else Circuit.OPEN

    @contextmanager
    def attempt(self) -> Generator[bool, None, None]:
        """Whether to try now; what is raised inside as CacheUnavailable is counted, and goes no further.

        A probe that is cancelled says nothing, and the next one takes its place.
        """
        if not self._allows():
            yield False
            return
        probing = self._probing = self.is_open
        try:
            yield True
        except CacheUnavailable as error:
            self._failed(error)
        else:
            if probing:  # what was asked before the failure, and is answered after it, tells nothing about now
                self._succeeded()
        finally:
            if probing:
                self._probing = False

    def _allows(self) -> bool:
        if self._open_until_s is None:
            return True
        return not self._probing and self._monotonic_s() >= self._open_until_s

    def _failed(self, error: CacheUnavailable) -> None:
        if not self.is_open:
            _log.warning("%s: %s; asked again in %g s", self._consequence, error.message, self._period_s)
        self._open_until_s = self._monotonic_s() + self._period_s

    def _succeeded(self) -> None:
        _log.info("Redis answers again")
        self._open_until_s = None
