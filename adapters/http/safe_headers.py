"""Headers that tell browsers to be careful; on every answer, unless a route says something stricter itself."""

from __future__ import annotations

from collections.abc import Mapping

from manent.adapters.http.forwarded import Origin
from manent.adapters.http.hosts import LOOPBACK, name_of

HTTPS_ONLY_S = 31_536_000
ALWAYS: Mapping[str, str] = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
}
UNCACHED = "no-store"


def https_headers(origin: Origin) -> Mapping[str, str]:
    """What is said besides to whom TLS brought here: to come by TLS only, for a year (RFC 6797)."""
    if origin.scheme != "https" or name_of(origin.host) in LOOPBACK:
        return {}
    return {"strict-transport-security": f"max-age={HTTPS_ONLY_S}"}
