"""Every setting, with its default and unit: ``MANENT_*`` environment variables and a ``.env`` file."""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from dotenv import dotenv_values
from pydantic import Field, ValidationError, field_validator
from pydantic_settings import SettingsConfigDict

from manent.app.batch_settings import BatchSettings
from manent.app.extension_settings import ExtensionSettings
from manent.app.identity_settings import IdentitySettings
from manent.app.log_levels import parse_levels
from manent.app.settings_errors import told
from manent.app.transport_settings import LimitSettings, TransportSettings

if TYPE_CHECKING:
    from sqlalchemy import URL

PREFIX = "MANENT_"
SQLITE_SCHEME = "sqlite:///"
POSTGRESQL_SCHEME = "postgresql+asyncpg://"
POSTGRESQL_OPTIONS = ("host", "port", "ssl")
SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
REDIS_SCHEMES = ("redis", "rediss", "unix")
REDIS_OPTIONS = ("db", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_check_hostname")
ENV_FILE = ".env"
OTHER_VARIABLES = frozenset({"MANENT_OPENBLAS", "MANENT_TEST_MODELS", "MANENT_API_KEY"})


class SettingsError(Exception):
    """A setting is wrong; the message names it, its value and what would be right."""


class Settings(BatchSettings, ExtensionSettings, IdentitySettings, LimitSettings, TransportSettings):
    """What an operator may decide. ``.env.example`` lists the same, and a test compares the two."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_file=ENV_FILE, extra="ignore", frozen=True)

    home: Path = Field(Path("~/.manent"), description="Folder of the database, the models and the keys.")
    host: str = Field("127.0.0.1", description="Address to listen on; other than loopback needs an API key or JWT.")
    port: int = Field(9123, ge=0, le=65535, description="TCP port to listen on; 0 takes a free one.")
    database_url: str | None = Field(
        None, description="SQLAlchemy URL, of SQLite or PostgreSQL; empty is SQLite in the home."
    )
    models: Path | None = Field(None, description="Path of models.toml; empty is models.toml in the home.")
    engine: str = Field(
        "mlx", min_length=1, description="mlx; scripted, without a model, for load tests; or the name of a plugin."
    )
    record: Literal["metadata", "content"] = Field(
        "metadata", description="What is recorded of completions that have no session and do not ask to be stored."
    )
    body_bytes_max: int = Field(10_000_000, ge=1024, description="Largest request body, in bytes.")
    image_urls: Literal["data", "https", "http"] = Field(
        "data", description="Where images may come from: data URLs only; https addresses too; http as well."
    )
    session_wait_s: float = Field(30.0, ge=0, description="How long a request waits for its session's turn, seconds.")
    session_waiting_max: int = Field(16, ge=0, description="How many requests may wait for one session's turn.")
    requests_max: int = Field(64, ge=1, description="How many requests a model works on or has waiting.")
    reruns_max: int = Field(2, ge=1, description="How many reruns generate at once.")
    reruns_waiting_max: int = Field(16, ge=0, description="How many reruns may wait for one of those.")
    running_max: int = Field(32, ge=1, description="How many requests a model works on at once; the others wait.")
    queue_wait_s: float = Field(60.0, gt=0, description="How long a request waits for a place at its model, seconds.")
    timeout_max_s: float = Field(3600.0, gt=0, description="How long a completion may take from its arrival, seconds.")
    deterministic_max_s: float = Field(
        120.0, gt=0, description="How long a deterministic completion, or its rerun, may have its model alone, seconds."
    )
    load_timeout_s: float = Field(600.0, gt=0, description="How long a model may take to load, seconds.")
    stall_timeout_s: float = Field(120.0, gt=0, description="How long a runner may be silent before it is killed, s.")
    memory_total_gb: float | None = Field(
        None, gt=0, description="Memory to plan with, in GB; empty is what the machine, or the container, has."
    )
    memory_reserved_gb: float | None = Field(
        None, ge=0, description="Kept for the system and others, in GB; empty is 15 % of the total."
    )
    memory_margin_gb: float | None = Field(
        None, ge=0, description="Kept free for models to grow into, in GB; empty is 7 % of the total."
    )
    memory_wait_s: float = Field(30.0, ge=0, description="How long a load waits for models in use to end, seconds.")
    idle_timeout_s: float = Field(
        0.0,
        ge=0,
        description="After how long unused a model is unloaded, seconds; 0 is never, models.toml goes before.",
    )
    prefix_memory_gb: float | None = Field(
        None, ge=0, description="Prefix cache of each model, in GB; empty is a sixteenth of the total, 0 is none."
    )
    prefix_disk_gb: float | None = Field(
        None,
        ge=0,
        description="Prefix caches of all models on disk, in GB; empty is 20, or a quarter of what is free; 0 is none.",
    )
    prefix_warm_sessions: int = Field(
        4, ge=0, le=1000, description="Conversations of the last hour that a model is warmed for once it is loaded."
    )
    write_timeout_s: float = Field(60.0, gt=0, description="How long a client may leave a stream unread, seconds.")
    drain_s: float = Field(6.0, ge=0, le=600, description="How long running completions may go on at a stop, seconds.")
    cache_bytes: int = Field(256_000_000, ge=0, description="Budget of the in-process context cache, in bytes.")
    redis_url: str | None = Field(
        None, description="URL of a Redis or Valkey that servers share contexts through; empty is none."
    )
    redis_connections_max: int = Field(16, ge=1, description="How many connections to Redis are opened.")
    redis_timeout_s: float = Field(
        0.25, gt=0, le=10, description="How long Redis may take for an answer before the log is read, seconds."
    )
    redis_retry_s: float = Field(
        5.0, gt=0, description="How long Redis is left alone after it did not answer, seconds."
    )
    redis_ttl_s: float = Field(86400.0, ge=1, description="How long an unused context stays in Redis, seconds.")
    redis_session_bytes_max: int = Field(
        4_194_304, ge=1024, le=256_000_000, description="Largest context that is kept in Redis, in bytes."
    )
    stream_keep_s: float = Field(
        900.0, ge=1, description="How long a stream can be resumed after its last words, seconds."
    )
    stream_bytes_max: int = Field(4_194_304, ge=1024, description="How much of one stream is kept for that, in bytes.")
    streams_bytes_max: int = Field(
        268_435_456,
        ge=1024,
        description="How much of all streams is kept for that, in bytes; Redis has its own bound.",
    )
    retry_grace_s: float = Field(
        10.0, ge=0, description="How long a whole answer goes on for an OpenAI SDK that lost its connection, seconds."
    )
    sweep_interval_s: float = Field(
        15.0, ge=0.1, description="Time between two looks for what was left open by a crash or has expired, seconds."
    )
    checkpoint_interval_s: float = Field(300.0, ge=1, description="Time between signed checkpoints, seconds.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least severe line logged.")
    log_format: Literal["auto", "console", "json"] = Field(
        "auto", description="auto: console on a terminal, else json."
    )
    log_levels: str = Field(
        "", description="Levels of single loggers, as manent.http=warning,manent.store=debug; empty is none."
    )
    metrics: Literal["main", "off"] = Field("main", description="Whether /metrics is served on the main port.")
    metrics_host: str = Field("127.0.0.1", description="Address of the port for monitoring alone.")
    metrics_port: int | None = Field(
        None, ge=1, le=65535, description="A port for /metrics and health alone, 9090 say; empty is none."
    )
    traces: Literal["off", "otlp"] = Field(
        "off", description="otlp sends traces where the OTEL_* variables say; it needs the extra manent[tracing]."
    )

    @field_validator("home")
    @classmethod
    def _expand(cls, home: Path) -> Path:
        return home.expanduser().absolute()

    @field_validator(
        "database_url",
        "models",
        "redis_url",
        "memory_total_gb",
        "memory_reserved_gb",
        "memory_margin_gb",
        "metrics_port",
        mode="before",
    )
    @classmethod
    def _empty_is_none(cls, value: object) -> object:
        return value or None

    @field_validator("prefix_memory_gb", "prefix_disk_gb", mode="before")
    @classmethod
    def _empty_text_is_none(cls, value: object) -> object:
        return None if value == "" else value

    @field_validator("log_levels")
    @classmethod
    def _known_levels(cls, levels: str) -> str:
        parse_levels(levels)
        return levels

    @field_validator("host")
    @classmethod
    def _address(cls, host: str) -> str:
        if host != "localhost":
            try:
                ipaddress.ip_address(host)
            except ValueError:
                raise ValueError("it must be an IP address, or localhost") from None
        return host

    @field_validator("redis_url")
    @classmethod
    def _known_redis(cls, url: str | None) -> str | None:
        if url is None:
            return None
        parts = urlsplit(url)
        if parts.scheme not in REDIS_SCHEMES:
            raise ValueError("use redis://user:password@host:6379/0, rediss:// for TLS, or unix:///path/of/redis.sock")
        _ = parts.port  # a ValueError, where it is none
        if parts.scheme != "unix" and not re.fullmatch(r"/?\d*", parts.path):
            raise ValueError(f"its path {parts.path!r} must be the number of a database, such as /0")
        for name, _value in parse_qsl(parts.query, keep_blank_values=True):
            if name not in REDIS_OPTIONS:
                raise ValueError(f"{name} is not understood; behind the ? it takes {', '.join(REDIS_OPTIONS)}")
        return url

    @field_validator("database_url")
    @classmethod
    def _known_database(cls, url: str | None) -> str | None:
        if url is None or url.startswith(SQLITE_SCHEME):
            return url
        wanted = (
            "use sqlite:////absolute/path/of/manent.db for SQLite, or postgresql+asyncpg://user:password@host/database "
            "for PostgreSQL"
        )
        if not url.startswith(POSTGRESQL_SCHEME):
            raise ValueError(wanted)
        parts = urlsplit(url)
        if not parts.path.strip("/"):
            raise ValueError(f"it names no database; {wanted}")
        query = [
            ("ssl" if name == "sslmode" else name, value)
            for name, value in parse_qsl(parts.query, keep_blank_values=True)
        ]
        for name, value in query:
            if name not in POSTGRESQL_OPTIONS or (name == "ssl" and value not in SSL_MODES):
                shown = f"{name}={value}" if name == "ssl" else name  # of others the value may be a password
                raise ValueError(
                    f"{shown} is not understood; behind the ? it takes host (a socket's folder), port, and ssl "
                    f"({', '.join(SSL_MODES)})"
                )
        return urlunsplit(parts._replace(query=urlencode(query)))

    @property
    def database(self) -> Path | URL:
        """The SQLite file, or the URL of PostgreSQL."""
        if self.database_url is None:
            return self.home / "manent.db"
        if self.database_url.startswith(POSTGRESQL_SCHEME):
            from sqlalchemy import make_url  # noqa: PLC0415 (a third of a second that most commands need not pay)

            return make_url(self.database_url)
        return Path(self.database_url.removeprefix(SQLITE_SCHEME)).expanduser().absolute()

    @property
    def is_loopback(self) -> bool:
        """Whether only programs of this machine reach the server."""
        if self.unix_socket is not None or self.host == "localhost":
            return True
        return ipaddress.ip_address(self.host).is_loopback

    @property
    def logger_levels(self) -> dict[str, str]:
        """The levels of single loggers."""
        return parse_levels(self.log_levels)

    @property
    def measures(self) -> bool:
        """Whether somebody can ask for metrics."""
        return self.metrics == "main" or self.metrics_port is not None

    @property
    def keys_folder(self) -> Path:
        """Where the log's signing key is, and the secret of API keys."""
        return self.home / "keys"

    @property
    def models_folder(self) -> Path:
        """Where models are installed."""
        return self.home / "models"

    @property
    def models_file(self) -> Path:
        """The registry of models."""
        return (self.models or self.home / "models.toml").expanduser().absolute()


def load_settings() -> Settings:
    """Read the settings.

    Raises:
        SettingsError: a value is wrong, or a ``MANENT_*`` name in the environment or ``.env`` is no setting.
    """
    names = [PREFIX + name.upper() for name in Settings.model_fields]
    for name in sorted({*os.environ, *dotenv_values(ENV_FILE)}):
        if name.startswith(PREFIX) and name not in names and name not in OTHER_VARIABLES:
            near = difflib.get_close_matches(name, names, n=1)
            raise SettingsError(f"{name} is no setting" + (f"; did you mean {near[0]}?" if near else ""))
    try:
        return Settings()
    except ValidationError as error:
        raise SettingsError("; ".join(told(problem, PREFIX) for problem in error.errors())) from None
