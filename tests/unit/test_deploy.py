"""The units, the Compose file and the proxies of docs/how-to/deploy, against the settings and the routes."""

from __future__ import annotations

import plistlib
import re
from collections.abc import Mapping
from configparser import ConfigParser
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from manent.adapters.http.context import HttpLimits
from manent.adapters.http.routes import ROUTES
from manent.app.settings import PREFIX, Settings

DEPLOY = Path(__file__).parents[2] / "docs" / "how-to" / "deploy"
FILES = sorted(path for path in DEPLOY.iterdir() if path.is_file())
DEFAULTS = Settings(_env_file=None)
PORT = DEFAULTS.port
# Of the drain: completions, reruns and connections have their own seconds behind MANENT_DRAIN_S.
STOP_S = DEFAULTS.drain_s + 10
METRICS_PORT = "9090"


def text(name: str) -> str:
    """A file."""
    return (DEPLOY / name).read_text(encoding="utf-8")


def taken(values: Mapping[str, Any]) -> Settings:
    """Settings of environment variables, judged as the server judges them."""
    named: dict[str, Any] = {name.removeprefix(PREFIX).lower(): value for name, value in values.items()}
    return Settings(_env_file=None, **named)


def compose() -> dict[str, Any]:
    """The Compose file."""
    found: dict[str, Any] = yaml.safe_load(text("compose.yaml"))
    return found


def unit() -> ConfigParser:
    """The systemd unit; of repeated keys the last."""
    found = ConfigParser(strict=False, interpolation=None, comment_prefixes=("#",))
    found.optionxform = str  # type: ignore[assignment,method-assign]  # as its documentation says
    found.read_string(text("manent.service"))
    return found


def plist() -> dict[str, Any]:
    """The launchd agent."""
    found: dict[str, Any] = plistlib.loads(text("com.manent.server.plist").encode())
    return found


def seconds(duration: str) -> int:
    """``30``, ``30s`` or ``60s`` in seconds."""
    return int(duration.rstrip("s"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_setting_that_is_named_exists(path: Path) -> None:
    """A typo would keep the server from its start."""
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    assert set(re.findall(rf"{PREFIX}[A-Z_]+[A-Z]", path.read_text(encoding="utf-8"))) <= known


def test_values_are_what_the_settings_take() -> None:
    """The server would refuse any other at its start."""
    given = dict(compose()["services"]["manent"]["environment"])
    assert given.pop("MANENT_HOST") == "0.0.0.0"  # noqa: S104 (in its container; whether it may be, another test says)
    assert taken({name: re.sub(r"\$\{[^}]*\}", "pw", value) for name, value in given.items()}).port == PORT
    lines = dict(re.findall(rf"^Environment=({PREFIX}\w+)=(.*)$", text("manent.service"), re.MULTILINE))
    assert taken(lines).log_format == "json"
    assert taken(plist()["EnvironmentVariables"]).log_format == "json"


def test_ports_agree() -> None:
    """Server, container, proxies and scraper mean the same ports; nothing is published beyond this machine."""
    services = compose()["services"]
    assert services["manent"]["ports"] == [f"127.0.0.1:{PORT}:{PORT}"]
    assert f"EXPOSE {PORT}\n" in text("Dockerfile")
    assert f"reverse_proxy 127.0.0.1:{PORT} {{" in text("Caddyfile")
    assert f"server 127.0.0.1:{PORT};" in text("nginx.conf")
    for service in services.values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
    scraped = yaml.safe_load(text("prometheus.yml"))["scrape_configs"][0]
    assert scraped["static_configs"][0]["targets"] == [f"manent:{METRICS_PORT}"]
    assert services["manent"]["environment"]["MANENT_METRICS_PORT"] == METRICS_PORT
    source = yaml.safe_load(text("grafana-datasource.yml"))["datasources"][0]["url"]
    assert source == f"http://prometheus:{services['prometheus']['ports'][0].rpartition(':')[2]}"


def test_images_are_pinned_by_version() -> None:
    """What is deployed today is deployed tomorrow."""
    images = [service["image"] for service in compose()["services"].values()]
    images += re.findall(r"^FROM (\S+)", text("Dockerfile"), re.MULTILINE)
    for image in images:
        assert re.search(r":v?\d+\.\d+", image), image
    assert compose()["services"]["manent"]["image"] == f"manent:{version('manent')}"


def test_files_that_are_mounted_and_copied_are_there() -> None:
    """A bind mount of a file that is missing makes a folder of its name."""
    services = compose()["services"]
    for service in services.values():
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            assert (DEPLOY / source).is_file() if source.startswith(".") else source in compose()["volumes"]
    build = services["manent"]["build"]
    top = (DEPLOY / build["context"]).resolve()
    assert (top / build["dockerfile"]).resolve() == DEPLOY / "Dockerfile"
    for source in re.findall(r"^COPY (\S+)", text("Dockerfile"), re.MULTILINE):
        assert (top / source).exists(), source


def test_health_checks_ask_real_routes() -> None:
    """A check that always fails would restart a healthy server for ever."""
    served = {path for route in ROUTES for path in route.paths if route.public}
    asked = re.findall(r"http://127\.0\.0\.1:\d+(/[\w/]+)", text("Dockerfile") + text("compose.yaml"))
    assert len(asked) == 2
    assert set(asked) <= served


def test_a_stop_waits_for_the_drain() -> None:
    """Whoever stops the server gives it longer than it takes to end its streams."""
    assert seconds(unit()["Service"]["TimeoutStopSec"]) > STOP_S
    assert plist()["ExitTimeOut"] > STOP_S
    assert seconds(compose()["services"]["manent"]["stop_grace_period"]) > STOP_S
    assert unit()["Service"]["KillSignal"] == "SIGTERM"


def test_units_start_the_command_in_their_home() -> None:
    """Both run ``manent serve``, write in one folder, and keep it to themselves."""
    service = unit()["Service"]
    assert service["ExecStart"].endswith("/.venv/bin/manent serve")
    assert f"/var/lib/{service['StateDirectory']}" == service["WorkingDirectory"]
    assert f"Environment=MANENT_HOME={service['WorkingDirectory']}\n" in text("manent.service")
    assert (service["StateDirectoryMode"], service["UMask"]) == ("0700", "0077")
    agent = plist()
    assert agent["ProgramArguments"][-1] == "serve"
    assert agent["WorkingDirectory"] == agent["EnvironmentVariables"]["MANENT_HOME"]
    assert agent["Umask"] == 0o077
    assert text("logrotate.conf").count(agent["StandardErrorPath"]) == 1


def test_proxies_do_not_hold_up_streams() -> None:
    """Pieces pass at once, answers may take as long as the server lets them, bodies are as large as it takes."""
    nginx, caddy = text("nginx.conf"), text("Caddyfile")
    assert "proxy_buffering off;" in nginx
    assert "flush_interval -1" in caddy
    for found in (
        re.search(r"proxy_read_timeout (\d+)s", nginx),
        re.search(r"response_header_timeout (\d+)s", caddy),
    ):
        assert found is not None
        assert int(found[1]) >= DEFAULTS.timeout_max_s
    assert DEFAULTS.body_bytes_max == 10_000_000
    assert "client_max_body_size 10m;" in nginx
    assert "request_body" not in caddy
    kept = re.search(r"keepalive_timeout (\d+)s", nginx)
    assert kept is not None
    assert int(kept[1]) < HttpLimits().keep_alive_timeout_s
    names = HttpLimits().hosts
    assert names is not None
    for host in re.findall(r"Host (\S+?);?\n", nginx + caddy):
        assert (urlsplit(f"//{host}").hostname or "") in names


def test_braces_of_the_proxies_match() -> None:
    """A block that is not closed would keep the proxy from its start."""
    for name in ("nginx.conf", "Caddyfile"):
        bare = re.sub(r"#.*", "", text(name))
        assert bare.count("{") == bare.count("}") > 0
    for line in re.sub(r"#.*", "", text("nginx.conf")).splitlines():
        assert not line.strip() or line.strip()[-1] in "{};", line
