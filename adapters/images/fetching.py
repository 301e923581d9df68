"""Images at addresses: fetched within bounds, and never from an address that only this machine or its network has.

Names are looked up once, what they lead to is judged, and the connection goes to that very address: a name that
leads elsewhere a moment later (DNS rebinding) has no second chance. Every redirect is judged like the first address.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Literal

import httpx

from manent.domain.errors import InvalidValue
from manent.domain.images import IMAGE_BYTES_MAX

ImageUrls = Literal["data", "https", "http"]
"""What an operator allows: data URLs alone; https addresses as well; http addresses as well."""

FETCH_S = 20.0
CONNECT_S = 5.0
REDIRECTS_MAX = 3
URL_CHARS_MAX = 4096

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Awaitable[list[str]]]
"""The addresses of a host and port; OSError where there are none."""


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


_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class ImageFetcher:
    """Fetches images. ``resolve`` and ``reachable`` stand for the network in tests."""

    def __init__(
        self,
        allowed: ImageUrls,
        *,
        resolve: Resolve = system_addresses,
        reachable: Callable[[Address], bool] = is_public,
        timeout_s: float = FETCH_S,
    ) -> None:
        self._allowed = allowed
        self._resolve = resolve
        self._reachable = reachable
        self._timeout_s = timeout_s
        self._tls: ssl.SSLContext | None = None

    async def fetch(self, url: str, *, param: str) -> bytes:
        """The file at ``url``.

        Raises:
            InvalidValue: it may not be fetched, is not there, is too large, or does not come in time.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                for _ in range(REDIRECTS_MAX + 1):
                    target = self._judged(url, param)
                    address = await self._address(target, param)
                    async with _answer(target, address, await self._certificates()) as response:
                        if not response.is_redirect:
                            return await _body(response, param)
                        url = str(target.join(response.headers.get("location", "")))
        except TimeoutError:
            raise _refused(f"did not come within {self._timeout_s:g} s", param) from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise _refused(f"could not be fetched ({type(error).__name__})", param) from None
        raise _refused(f"is behind more than {REDIRECTS_MAX} redirects", param)

    async def _certificates(self) -> ssl.SSLContext:
        """Those of the world; reading them takes a tenth of a second, once."""
        if self._tls is None:
            self._tls = await asyncio.to_thread(httpx.create_ssl_context)
        return self._tls

    def _judged(self, url: str, param: str) -> httpx.URL:
        if self._allowed == "data":
            raise InvalidValue(
                "this server fetches no images; send the image itself, as a data URL "
                "(its operator may allow addresses by MANENT_IMAGE_URLS)",
                param=param,
            )
        try:
            target = httpx.URL(url)
        except (httpx.InvalidURL, ValueError):
            raise _refused("has no address that can be read", param) from None
        schemes = ("https", "http") if self._allowed == "http" else ("https",)
        if target.scheme not in schemes or not target.host or len(url) > URL_CHARS_MAX or target.userinfo:
            wanted = " or ".join(schemes)
            raise _refused(f"must have a plain {wanted} address of at most {URL_CHARS_MAX} characters", param)
        return target

    async def _address(self, target: httpx.URL, param: str) -> str:
        port = target.port or {"https": 443, "http": 80}[target.scheme]
        try:
            found = await self._resolve(target.host, port)
        except (OSError, UnicodeError):
            found = []
        if not found:
            raise _refused(f"is at {target.host[:200]!r}, which is not known", param)
        for address in found:
            if not self._reachable(ipaddress.ip_address(address.partition("%")[0])):
                raise _refused(f"is at {target.host[:200]!r}, an address that is not public", param)
        return found[0]


@asynccontextmanager
async def _answer(target: httpx.URL, address: str, tls: ssl.SSLContext) -> AsyncGenerator[httpx.Response, None]:
    """The head of the answer that ``address`` gives when it is asked for ``target``."""
    timeout = httpx.Timeout(FETCH_S, connect=CONNECT_S)
    async with (
        httpx.AsyncClient(timeout=timeout, verify=tls, trust_env=False, follow_redirects=False) as client,
        client.stream(
            "GET",
            target.copy_with(host=address),
            # Uncompressed: a small body that unpacks to gigabytes is not even asked for, and would stay packed.
            headers={"host": target.netloc.decode("ascii"), "accept": "image/*", "accept-encoding": "identity"},
            extensions={"sni_hostname": target.raw_host.decode("ascii")},
        ) as response,
    ):
        yield response


async def _body(response: httpx.Response, param: str) -> bytes:
    if response.status_code != httpx.codes.OK:
        raise _refused(f"could not be fetched: the server there answered {response.status_code}", param)
    body = bytearray()
    async for piece in response.aiter_raw():
        body += piece
        if len(body) > IMAGE_BYTES_MAX:
            raise _refused(f"has more than {IMAGE_BYTES_MAX} bytes", param)
    return bytes(body)


def _refused(what: str, param: str) -> InvalidValue:
    return InvalidValue(f"the image {what}", param=param)
