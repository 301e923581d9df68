"""These tests run on the loop that the product runs on."""

from __future__ import annotations

import asyncio

import pytest
import uvloop


@pytest.fixture(scope="session")
def event_loop_policy() -> asyncio.AbstractEventLoopPolicy:
    """uvloop: its transports and their buffers are what disconnects and slow readers are about."""
    return uvloop.EventLoopPolicy()
