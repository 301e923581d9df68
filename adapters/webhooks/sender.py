"""Messages to receivers: within bounds, only where the operator allows it, no redirect followed, no answer read."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
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
from manent.domain.webhooks import DeliveryFailed

WebhookUrls = Literal["https", "http", "private"]
"""What an operator allows: public https addresses; public http addresses too; any address, private ones as well."""

SEND_S = 15.0


class HttpWebhookSender:
    """Implements ``WebhookSender``. ``resolve`` and ``reachable`` stand for the network in tests."""

    def __init__(
        self,
        allowed: WebhookUrls,
        *,
        resolve: Resolve = system_addresses,
        reachable: Reachable = is_public,
        timeout_s: float = SEND_S,
    ) -> None:
        self._schemes = ("https",) if allowed == "https" else ("https", "http")
        self._resolve = resolve
        self._reachable: Reachable = (lambda _: True) if allowed == "private" else reachable
        self._timeout_s = timeout_s
        self._tls: ssl.SSLContext | None = None

    def check(self, url: str) -> None:
        """See ``WebhookSender.check``."""
        try:
            target = httpx.URL(url)
        except (httpx.InvalidURL, ValueError):
            raise InvalidValue(f"{url!r:.200} is no address that can be read", param="url") from None
        if target.scheme not in self._schemes or not target.host or target.userinfo or target.fragment:
            wanted = " or ".join(self._schemes)
            raise InvalidValue(
                f"{url!r:.200} must be a plain {wanted} address, without user and fragment "
                "(its operator may allow others by MANENT_WEBHOOK_URLS)",
                param="url",
            )

    async def send(self, url: str, *, headers: Mapping[str, str], body: bytes) -> None:
        """See ``WebhookSender.send``."""
        try:
            self.check(url)
            if self._tls is None:
                self._tls = await asyncio.to_thread(httpx.create_ssl_context)  # the world's certificates, read once
            async with asyncio.timeout(self._timeout_s):
                await self._send(httpx.URL(url), self._tls, headers, body)
        except InvalidValue as error:
            raise DeliveryFailed(error.message) from None
        except AddressRefused as error:
            raise DeliveryFailed(f"the receiver {error}") from None
        except TimeoutError:
            raise DeliveryFailed(f"the receiver did not answer within {self._timeout_s:g} s") from None
        except httpx.HTTPError as error:
            raise DeliveryFailed(f"the receiver could not be asked ({type(error).__name__})") from None

    async def _send(self, target: httpx.URL, tls: ssl.SSLContext, headers: Mapping[str, str], body: bytes) -> None:
        address = await judged_address(target, self._resolve, self._reachable)
        async with asked(
            "POST", target, address, tls=tls, timeout_s=self._timeout_s, headers=headers, content=body
        ) as response:
            if not response.is_success:
                redirect = ", a redirect, which is not followed" if response.is_redirect else ""
                raise DeliveryFailed(
                    f"the receiver answered {response.status_code}{redirect}", status=response.status_code
                )
