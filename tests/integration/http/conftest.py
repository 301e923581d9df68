"""These tests run on the loop that the product runs on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import uvloop


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """uvloop: its transports and their buffers are what disconnects and slow readers are about."""
    return {"uvloop": uvloop.new_event_loop}
