"""``manent doctor`` on how a server is reached: ports, the Unix socket, the certificate, issuers' keys, traces."""

from __future__ import annotations

import asyncio
import importlib.util
import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx

from manent.adapters.auth.jwks import KeySet, KeySetUnusable, read_file, read_url
from manent.adapters.http.tls import CertificateUnusable
from manent.app.findings import Finding, failure, ok, warning
from manent.app.listening import certificate_of
from manent.app.settings import Settings

ANSWER_S = 2.0
OTHERS = 0o077
RENEW_WITHIN = timedelta(days=14)
ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (nothing is bound here)
TLS_ADVICE = "correct MANENT_TLS_CERTIFICATE and MANENT_TLS_KEY; a server that runs keeps the certificate that it has"


def examine_listening(settings: Settings) -> Iterator[Finding]:
    """The checks of this file, in order."""
    if settings.unix_socket is None:
        scheme = "http" if settings.tls_certificate is None else "https"
        yield _port("port", settings.host, settings.port, scheme=scheme, setting="MANENT_PORT")
    else:
        yield _unix_socket(settings.unix_socket.expanduser().absolute())
    if settings.metrics_port is not None:
        host, port = settings.metrics_host, settings.metrics_port
        yield _port("metrics port", host, port, scheme="http", setting="MANENT_METRICS_PORT")
    if settings.tls_certificate is not None and settings.tls_key is not None:
        yield _certificate(settings, settings.tls_certificate.expanduser(), settings.tls_key.expanduser())
    if settings.jwt_jwks is not None and settings.jwt_algorithm is not None:
        yield asyncio.run(_issuer_keys(settings.jwt_jwks, settings.jwt_algorithm))
    if settings.traces == "otlp":
        yield _traces()


def _port(check: str, host: str, port: int, *, scheme: str, setting: str) -> Finding:
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen()
        except OSError as error:
            return _taken(check, f"{scheme}://{_reached(host)}:{port}", address, error, setting)
    return ok(check, f"{address} is free")


def _reached(host: str) -> str:
    """How this machine reaches a server that listens on ``host``."""
    host = ANY_ADDRESS.get(host, host)
    return f"[{host}]" if ":" in host else host


def _taken(check: str, url: str, address: str, error: OSError, setting: str) -> Finding:
    """Whether it is a Manent that runs there, and how it is."""
    cannot = f"{address} cannot be listened on ({error.strerror})"
    try:
        with httpx.Client(
            timeout=ANSWER_S,
            trust_env=False,
            verify=False,  # noqa: S501 (whose certificate it is does not matter: nothing is said that others must not hear)
        ) as client:
            health = client.get(f"{url}/health/ready").json()
        status, troubles = health["status"], {**health["problems"], **health["degraded"]}
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return warning(check, f"{cannot}, and no Manent answers there", f"stop what does, or set {setting}")
    found = f"{address} is listened on by a Manent that is {status.replace('_', ' ')}"
    if troubles:
        told = "; ".join(f"{name}: {text}" for name, text in troubles.items())
        return warning(check, f"{found}: {told}", "mend what it names; docs/how-to/monitor.md")
    return ok(check, found)


def _unix_socket(path: Path) -> Finding:
    advice = "make the folder, or set MANENT_UNIX_SOCKET to another path"
    if not path.parent.is_dir():
        return failure("socket", f"{path} cannot be made: its folder is missing", advice)
    if path.exists() and not path.is_socket():
        return failure("socket", f"{path} is there and no socket", "set MANENT_UNIX_SOCKET to another path")
    return ok("socket", str(path))


def _certificate(settings: Settings, chain: Path, key: Path) -> Finding:
    """Whether HTTPS can be served with the files, and for how long."""
    from cryptography import x509  # noqa: PLC0415 (a tenth of a second that most commands need not pay)

    try:
        certificate_of(settings)
        first, *_ = x509.load_pem_x509_certificates(chain.read_bytes())
    except (CertificateUnusable, OSError, ValueError) as error:
        return failure("tls", str(error), TLS_ADVICE)
    now, until = datetime.now(UTC), first.not_valid_after_utc
    if until < now:
        return failure("tls", f"{chain} was valid until {until:%Y-%m-%d %H:%M} UTC", "renew it: clients refuse it")
    if first.not_valid_before_utc > now:
        begins = f"{first.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
        return failure("tls", f"{chain} is valid from {begins} on", "check the clock, or take another certificate")
    if key.stat().st_mode & OTHERS:
        return warning("tls", f"others can read {key}", f"run `chmod go= {key}`")
    left = f"{chain} is valid until {until:%Y-%m-%d}"
    if until < now + RENEW_WITHIN:
        return warning("tls", left, "renew it; a server that runs takes the new one without a restart")
    return ok("tls", left)


async def _issuer_keys(source: str, algorithm: str) -> Finding:
    """Whether the key set is there; a server starts without one that has an address, and refuses its tokens."""
    is_url = "://" in source
    keys = KeySet(read_url(source) if is_url else read_file(Path(source)), algorithm=algorithm)
    try:
        await keys.load()
    except KeySetUnusable as error:
        found = warning if is_url else failure
        return found(
            "jwks", f"MANENT_JWT_JWKS={source}: {error}", "until it is there, tokens of the issuer are refused"
        )
    return ok("jwks", source)


def _traces() -> Finding:
    missing = [name for name in ("opentelemetry.sdk", "opentelemetry.exporter.otlp") if not _is_installed(name)]
    if missing:
        detail = f"MANENT_TRACES=otlp, and {', '.join(missing)} cannot be imported"
        return failure("traces", detail, "pip install 'manent[tracing]', or set MANENT_TRACES=off")
    return ok("traces", "they are sent where the OTEL_* variables say")


def _is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # of a package around it
        return False
