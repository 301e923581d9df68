"""Which addresses the whole internet has, and asking exactly the address that was judged.

Names are looked up once, what they lead to is judged, and the connection goes to that very address: a name that
leads elsewhere a moment later (DNS rebinding) has no second chance. Redirects are not followed; who wants to, judges
each like the first address.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx

CONNECT_S = 5.0
PORTS = {"https": 443, "http": 80}

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Awaitable[list[str]]]
"""The addresses of a host and port; OSError where there are none."""
Reachable = Callable[[Address], bool]

_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class AddressRefused(Exception):
    """The host is not known, or is at an address that may not be asked; the message is the end of a sentence."""


async def system_addresses(host: str, port: int) -> list[str]:
    """What the system's resolver says."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for _, _, _, _, address in found]


def is_public(address: Address) -> bool:
    """Whether the whole internet can reach it: not loopback, private, link-local, shared, multicast or reserved."""
    inner = getattr(address, "ipv4_mapped", None) or getattr(address, "sixtofour", None)
    if inner is not None:
        return is_public(inner)
    if isinstance(address, ipaddress.IPv6Address) and (address.teredo or address in _NAT64):
        return False
    return address.is_global and not address.is_multicast


async def judged_address(target: httpx.URL, resolve: Resolve, reachable: Reachable) -> str:
    """The address to ask for ``target``: the first of its host's, where each of them may be asked.

    Raises:
        AddressRefused: one may not, or there is none.
    """
    host = target.host[:200]
    try:
        found = await resolve(target.host, target.port or PORTS[target.scheme])
    except (OSError, UnicodeError):
        found = []
    if not found:
        raise AddressRefused(f"is at {host!r}, which is not known")
    for address in found:
        if not reachable(ipaddress.ip_address(address.partition("%")[0])):
            raise AddressRefused(f"is at {host!r}, an address that is not public")
    return found[0]


@asynccontextmanager
async def asked(
    method: str,
    target: httpx.URL,
    address: str,
    *,
    tls: ssl.SSLContext,
    timeout_s: float,
    headers: Mapping[str, str],
    content: bytes | None = None,
) -> AsyncGenerator[httpx.Response, None]:
    """The head of the answer that ``address`` gives when it is asked for ``target``; the body is the caller's to read.

    Raises:
        httpx.HTTPError: it does not answer, or not as HTTP.
    """
    more: dict[str, Any] = {} if content is None else {"content": content}
    async with (
        httpx.AsyncClient(
            timeout=httpx.Timeout(timeout_s, connect=CONNECT_S), verify=tls, trust_env=False, follow_redirects=False
        ) as client,
        client.stream(
            method,
            target.copy_with(host=address),
            # Uncompressed: a small body that unpacks to gigabytes is not even asked for, and would stay packed.
            headers={"host": target.netloc.decode("ascii"), "accept-encoding": "identity", **headers},
            extensions={"sni_hostname": target.raw_host.decode("ascii")},
            **more,
        ) as response,
    ):
        yield response
