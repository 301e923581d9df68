"""Images at addresses: fetched within bounds, and never from an address that only this machine or its network has.

How an address is judged is in ``manent.adapters.network``. Every redirect is judged like the first address.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Literal

import httpx

from manent.adapters.network.addresses import (
    AddressRefused,
    Reachable,
    Resolve,
    asked,
    is_public,
    judged_address,
    system_addresses,
)
from manent.domain.errors import InvalidValue
from manent.domain.images import IMAGE_BYTES_MAX

ImageUrls = Literal["data", "https", "http"]
"""What an operator allows: data URLs alone; https addresses as well; http addresses as well."""

FETCH_S = 20.0
REDIRECTS_MAX = 3
URL_CHARS_MAX = 4096


class ImageFetcher:
    """Fetches images. ``resolve`` and ``reachable`` stand for the network in tests."""

    def __init__(
        self,
        allowed: ImageUrls,
        *,
        resolve: Resolve = system_addresses,
        reachable: Reachable = is_public,
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
                    tls = await self._certificates()
                    async with asked(
                        "GET", target, address, tls=tls, timeout_s=FETCH_S, headers={"accept": "image/*"}
                    ) as response:
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
        try:
            return await judged_address(target, self._resolve, self._reachable)
        except AddressRefused as error:
            raise _refused(str(error), param) from None


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
