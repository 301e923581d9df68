"""Settings of what a server limits, whom it answers and how it listens; a part of ``Settings``."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings

from manent.adapters.http.cors import Origins
from manent.adapters.http.forwarded import TrustedProxies
from manent.adapters.http.hosts import HostNames
from manent.domain.errors import InvalidValue
from manent.domain.limits import RequestLimits
from manent.domain.usecases.count_requests import LimitPolicy

LIMITS_EXAMPLE = "'requests_per_minute=60 tokens_per_hour=100000 running_max=4'"
MODE_MAX = 0o777


class LimitSettings(BaseSettings):
    """How much may be asked for."""

    limits_per_key: str = Field("", description=f"Limits of each credential without its own, as {LIMITS_EXAMPLE}.")
    limits_per_subject: str = Field("", description="Limits of each subject, all its credentials together.")
    limits_per_model: str = Field("", description="Limits of each model, everybody together.")
    limits_per_address: str = Field("", description="Limits of each client address; of IPv6, of each /64.")
    messages_max: int = Field(5_000, ge=1, description="Most messages in one request.")
    connections_max: int = Field(1_000, ge=8, description="Most open connections; idle ones make room for new ones.")
    streams_max: int = Field(512, ge=1, description="Most completions that are streamed at once.")
    websockets_max: int = Field(500, ge=1, description="Most WebSockets open at once; they count as connections too.")
    websocket_requests_max: int = Field(16, ge=1, description="Most requests answered at once on one WebSocket.")
    websocket_idle_s: float = Field(
        300.0, gt=0, description="How long a WebSocket stays open without a request, seconds."
    )
    header_timeout_s: float = Field(20.0, gt=0, description="How long a request's header may take, seconds.")
    body_timeout_s: float = Field(60.0, gt=0, description="How long a request's body may take, seconds.")

    @field_validator("limits_per_key", "limits_per_subject", "limits_per_model", "limits_per_address")
    @classmethod
    def _readable(cls, text: str) -> str:
        read_limits(text)
        return text

    @property
    def limit_policy(self) -> LimitPolicy:
        """The limits of everybody."""
        return LimitPolicy(
            per_key=read_limits(self.limits_per_key),
            per_subject=read_limits(self.limits_per_subject),
            per_model=read_limits(self.limits_per_model),
            per_address=read_limits(self.limits_per_address),
        )


class TransportSettings(BaseSettings):
    """Whom the server answers, and how it listens. Lists are separated by commas."""

    hosts: str = Field(
        "", description="Names the server answers to, such as *.example.com, besides loopback's; * is any."
    )
    cors_origins: str = Field("", description="Origins whose web pages may use it, such as https://*.example.com.")
    cors_credentials: bool = Field(
        default=False, description="Whether those may send cookies and client certificates along."
    )
    trusted_proxies: str = Field(
        "", description="Addresses and networks of reverse proxies, and unix for the Unix socket, that are believed."
    )
    forwarded_header: Literal["x-forwarded-for", "forwarded"] = Field(
        "x-forwarded-for", description="The header that they write; the other one is ignored."
    )
    tls_certificate: Path | None = Field(None, description="Certificate chain (PEM) to serve HTTPS with; none is HTTP.")
    tls_key: Path | None = Field(None, description="The certificate's private key (PEM).")
    unix_socket: Path | None = Field(None, description="Path of a Unix socket to listen on in place of host and port.")
    unix_socket_mode: str = Field("600", description="Permissions of the Unix socket, octal.")

    @field_validator("tls_certificate", "tls_key", "unix_socket", mode="before")
    @classmethod
    def _no_path_is_none(cls, value: object) -> object:
        return value or None

    @field_validator("hosts")
    @classmethod
    def _hosts(cls, text: str) -> str:
        HostNames(listed(text))
        return text

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, text: str) -> str:
        Origins(listed(text))
        return text

    @field_validator("trusted_proxies")
    @classmethod
    def _proxies(cls, text: str) -> str:
        TrustedProxies(listed(text))
        return text

    @field_validator("unix_socket_mode")
    @classmethod
    def _mode(cls, text: str) -> str:
        if not text.isascii() or not text.isdigit() or set(text) - set("01234567") or int(text, 8) > MODE_MAX:
            raise ValueError("it must be octal permissions such as 600 or 660")
        return text

    @model_validator(mode="after")
    def _whole_transport(self) -> TransportSettings:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("MANENT_TLS_CERTIFICATE and MANENT_TLS_KEY go together: set both or neither")
        if self.tls_certificate is not None and self.unix_socket is not None:
            raise ValueError("MANENT_UNIX_SOCKET and MANENT_TLS_CERTIFICATE do not go together")
        Origins(listed(self.cors_origins), credentials=self.cors_credentials)
        return self

    @property
    def origins(self) -> Origins:
        """The web pages that may use the server."""
        return Origins(listed(self.cors_origins), credentials=self.cors_credentials)

    @property
    def proxies(self) -> TrustedProxies:
        """The proxies that are believed."""
        return TrustedProxies(listed(self.trusted_proxies), header=self.forwarded_header)


def listed(text: str) -> list[str]:
    """The items of a list that is separated by commas."""
    return [item for item in (item.strip() for item in text.split(",")) if item]


def read_limits(text: str) -> RequestLimits:
    """Limits as an operator writes them: ``requests_per_minute=60 running_max=4``, separated by spaces or commas.

    Raises:
        ValueError: a name or a number is wrong.
    """
    names = [one.name for one in fields(RequestLimits)]
    given: dict[str, int] = {}
    for item in text.replace(",", " ").split():
        name, equals, amount = item.partition("=")
        if name not in names or not equals:
            raise ValueError(f"{item!r} is no limit; write {LIMITS_EXAMPLE}, of {', '.join(names)}")
        if not (amount.isascii() and amount.isdigit()):
            raise ValueError(f"{name} is {amount!r}; it must be a whole number")
        given[name] = int(amount)
    try:
        return RequestLimits(**given)
    except InvalidValue as error:
        raise ValueError(error.message) from None
