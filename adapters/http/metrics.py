"""GET /metrics: what Prometheus scrapes, on the API's port or on one of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sanic import HTTPResponse

from manent.adapters.http.answers import bytes_answer
from manent.adapters.http.context import Exchange
from manent.adapters.http.errors import RequestRefused
from manent.adapters.http.route import Route
from manent.domain.access import Scope


async def scrape(exchange: Exchange) -> HTTPResponse:
    """The metrics, in Prometheus's format or in OpenMetrics.

    Raises:
        RequestRefused: they are not served here.
    """
    render = exchange.services.scrape
    if render is None:
        raise RequestRefused("unknown_url", "metrics are not served on this port; MANENT_METRICS turns them on")
    body, content_type = render(exchange.request.headers.get("accept", ""))
    return bytes_answer(body, content_type)


METRICS_ROUTE = Route(
    name="metrics",
    method="GET",
    path="/metrics",
    handler=scrape,
    summary="What this server counts and measures, for Prometheus",
    tag="Health",
    content_type="text/plain",
    errors=("unknown_url", "permission_denied", "internal_error"),
    under_v1=False,
    scope=Scope.METRICS_READ,
)


def monitoring_routes(routes: Sequence[Route]) -> list[Route]:
    """What a port for monitoring alone serves: metrics, to whoever reaches it, and health."""
    served = [route for route in routes if route.path.startswith("/health/")]
    return [replace(METRICS_ROUTE, public=True, scope=None), *served]
