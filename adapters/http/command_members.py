"""What every request for a completion tells the use case, whichever API it came through."""

from __future__ import annotations

from typing import TypedDict

from manent.adapters.http.context import Exchange
from manent.adapters.http.wire_anthropic_requests import MessageRequest
from manent.adapters.http.wire_requests import SamplingRequest
from manent.adapters.http.wire_response_requests import ResponseRequest
from manent.domain.access import Principal
from manent.domain.admission import Priority


class CommandMembers(TypedDict):
    """Members of a ``ChatCommand``."""

    principal: Principal
    model: str
    stream: bool
    priority: Priority
    timeout_s: float | None
    request_id: str
    correlation_id: str | None
    address: str | None


def command_members(asked: SamplingRequest | ResponseRequest | MessageRequest, exchange: Exchange) -> CommandMembers:
    """Those that say who asks, for what, and how it is to be treated."""
    request = exchange.request
    return CommandMembers(
        principal=exchange.principal,
        model=asked.model,
        stream=bool(asked.stream),
        priority=exchange.priority(asked.priority),
        timeout_s=asked.timeout_s,
        request_id=request.request_id,
        correlation_id=request.correlation_id,
        address=request.origin.address,
    )
