"""Nothing that hangs or crashes stops the suite: each test and the whole run are bounded, lost workers replaced.

faulthandler's own thread keeps the time: it also ends what hangs in C, in a fixture or with the GIL held, and it shows
every thread's stack on the standard error. (pytest's ``faulthandler_timeout`` and pytest-timeout stop the clock when a
test fails, so that a teardown that hangs after it is never ended; and of a worker no stack is seen.)
"""

from __future__ import annotations

import faulthandler
import os
from collections.abc import Generator

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling
from xdist.workermanage import WorkerController

TEST_S = 180.0
RUN_S = 30 * 60.0

STDERR = pytest.StashKey[int]()


def pytest_configure(config: pytest.Config) -> None:
    """Bound the run of the process that hands out the tests, in which none runs. Standard error is not captured yet."""
    config.stash[STDERR] = os.dup(2)
    config.addinivalue_line("markers", f"timeout(seconds): this test may take longer than {TEST_S:.0f} seconds")
    if config.getoption("dist", "no") != "no" and not hasattr(config, "workerinput"):
        faulthandler.dump_traceback_later(RUN_S, exit=True, file=config.stash[STDERR])


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Bound a test with its fixtures."""
    start_clock(item)
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    """Bound the teardown anew: pytest stopped the clock if the test failed."""
    start_clock(item)
    return (yield)


def start_clock(item: pytest.Item) -> None:
    """Show all stacks and end this process when the test's time is over."""
    marker = item.get_closest_marker("timeout")
    faulthandler.dump_traceback_later(marker.args[0] if marker else TEST_S, exit=True, file=item.config.stash[STDERR])


class FilesInTurn(LoadFileScheduling):  # type: ignore[misc]  # xdist has no types
    """``--dist loadfile`` that outlives a crashed worker (xdist 3.8 deadlocks: its issues 784, 1327 and 1378)."""

    def remove_node(self, node: WorkerController) -> str | None:
        """Hand out again what the node had left to do, without the test that it crashed in."""
        units: dict[str, dict[str, bool]] = self.assigned_work[node]
        left = {file: [test for test, done in unit.items() if not done] for file, unit in units.items()}
        crashed = next((test for tests in left.values() for test in tests), None)
        if crashed is None:
            del self.assigned_work[node]
            return None
        self.assigned_work[node] = {}
        super().remove_node(node)
        for file, tests in left.items():
            unit = dict.fromkeys((test for test in tests if test != crashed), False)
            if unit:
                self.workqueue[file] = unit
        for other in self.nodes:
            self._reschedule(other)
        return crashed

    def schedule(self) -> None:
        """Give a new node two units: with a single test it would wait for a second one for ever."""
        again = self.collection is not None
        super().schedule()
        if again:
            super().schedule()


@pytest.hookimpl(tryfirst=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> FilesInTurn | None:
    """Ours, where ``--dist loadfile`` asks for files."""
    return FilesInTurn(config, log) if config.getoption("dist") == "loadfile" else None
