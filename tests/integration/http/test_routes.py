"""Everything that is served: described, under both prefixes, with an id on every answer; and the page that shows it."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Mapping

import pytest

from manent.adapters.http.app import create_app
from manent.adapters.http.context import HttpLimits
from manent.adapters.http.route import openapi_path
from manent.adapters.http.wire_responses import Live, Model, ModelList, Ready, Welcome
from manent.adapters.inference.scripted import ScriptedEngine
from manent.domain.generation import ModelCard
from tests.support.http import running_server

HUB_CARD = ModelCard(
    model_id="mlx-community/Llama-3.2-1B", context_length=100, created_at_s=7, aliases=("llama", "default")
)


async def test_what_is_served_is_what_is_described() -> None:
    """Sanic's router and /openapi.json name the same methods of the same paths."""
    async with running_server() as running:
        described = {
            (method.upper(), path)
            for path, item in (await running.http.get("/openapi.json")).json()["paths"].items()
            for method in item
        }
        served = {
            (method, openapi_path(f"/{route.path}")) for route in running.app.router.routes for method in route.methods
        }
        assert described == served
        assert len(served) > 15
        for method, path in served:
            if path.startswith("/v1/"):
                assert (method, f"/api{path}") in served


@pytest.mark.parametrize("prefix", ["/v1", "/api/v1"])
async def test_models_are_listed_and_found(prefix: str) -> None:
    """The registry in OpenAI's shape; ids with a slash and aliases are found, others are a 404."""
    async with running_server(engine=ScriptedEngine(cards=(HUB_CARD,))) as running:
        listed = ModelList.model_validate_json((await running.http.get(f"{prefix}/models")).content, strict=True)
        assert [model.id for model in listed.data] == ["mlx-community/Llama-3.2-1B"]
        for name in ("mlx-community/Llama-3.2-1B", "mlx-community%2FLlama-3.2-1B", "llama"):
            found = await running.http.get(f"{prefix}/models/{name}")
            assert Model.model_validate_json(found.content) == listed.data[0]
        missing = await running.http.get(f"{prefix}/models/mlx-community/none")
        assert (missing.status_code, missing.json()["error"]["code"]) == (404, "model_not_found")


async def test_health_says_what_stands_in_the_way() -> None:
    """Live is always 200; ready is 503 with the named problems, also where the checks hang."""
    problems = {"store": "the database does not answer"}

    async def not_ready() -> Mapping[str, str]:
        return problems

    async with running_server(ready=not_ready) as running:
        for live in ("/health/live", "/api/v1/health/live"):
            assert Live.model_validate_json((await running.http.get(live)).content).status == "ok"
        answer = await running.http.get("/health/ready")
        assert answer.status_code == 503
        assert Ready.model_validate_json(answer.content).problems == problems
        problems.clear()
        assert (await running.http.get("/health/ready")).json() == {"status": "ready", "problems": {}, "degraded": {}}

    async def hanging() -> Mapping[str, str]:
        await asyncio.Event().wait()
        return {}

    async with running_server(ready=hanging, limits=HttpLimits(ready_timeout_s=0.02)) as running:
        answer = await running.http.get("/health/ready")
        assert (answer.status_code, list(answer.json()["problems"])) == (503, ["ready"])


async def test_the_page_loads_nothing_from_other_hosts() -> None:
    """Every address that the page, its script and its style sheet name is ours, and the browser is told to insist."""
    async with running_server() as running:
        page = await running.http.get("/docs")
        assert page.headers["content-type"].startswith("text/html")
        named = re.findall(r'(?:src|href|url)="?:? ?"?([^"\s>]+)"', page.text)
        script = await running.http.get("/docs/page.js")
        named += re.findall(r'url: "([^"]+)"', script.text)
        assert len(named) == 5
        for address in named:
            assert address.startswith("/docs/")
            answer = await running.http.get(address)
            assert answer.status_code == 200
            assert answer.headers["x-content-type-options"] == "nosniff"
        styles = (await running.http.get("/docs/swagger-ui.css")).text
        assert all(address.startswith("data:") for address in re.findall(r"url\([\"']?([^\"')]+)", styles))
        assert "@import" not in styles
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy
        assert "http" not in policy
        assert "validatorUrl: null" in script.text
        assert Welcome.model_validate_json((await running.http.get("/")).content).docs == "/docs"


@pytest.mark.parametrize("name", ["index.html", "..%2f..%2fsecret", "swagger-ui.js.map", "%00"])
async def test_no_other_file_is_served(name: str) -> None:
    """The page's files are a closed list."""
    async with running_server() as running:
        answer = await running.http.get(f"/docs/{name}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_url")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/nothing", 404, "unknown_url"),
        ("GET", "/v2/models", 404, "unknown_url"),
        ("POST", "/v1/nothing", 404, "unknown_url"),
        ("PUT", "/v1/models", 405, "method_not_allowed"),
        ("PUT", "/v1/chat/completions", 405, "method_not_allowed"),
        ("POST", "/v1/moderations", 404, "unsupported_endpoint"),
        ("GET", "/api/v1/fine_tuning/jobs/x", 404, "unsupported_endpoint"),
        ("OPTIONS", "/v1/models", 405, "method_not_allowed"),
        ("GET", "/v1/models?page=2", 400, "unknown_parameter"),
        ("GET", "/%ff%fe", 404, "unknown_url"),
    ],
)
async def test_a_wrong_address_is_told_in_json(method: str, path: str, status: int, code: str) -> None:
    """Unknown paths, methods and queries have OpenAI's envelope and an id, never a page of HTML."""
    async with running_server() as running:
        answer = await running.http.request(method, path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
        assert answer.headers["x-request-id"].startswith("req_")
        if status == 405:
            assert answer.headers["allow"]


@pytest.mark.parametrize("path", ["/", "/health/live", "/docs", "/openapi.json", "/v1/models", "/nowhere"])
async def test_the_clients_request_id_comes_back(path: str) -> None:
    """Every answer carries the id that the client chose, where it is safe, and how long it took."""
    async with running_server() as running:
        answer = await running.http.get(path, headers={"X-Request-ID": "Trace-1:a/b"})
        assert answer.headers["x-request-id"] == "Trace-1:a/b"
        assert int(answer.headers["openai-processing-ms"]) >= 1
        for unsafe in ("", "a b", "x" * 129, 'a"b', "a;b"):
            answer = await running.http.get(path, headers={"X-Request-ID": unsafe})
            assert re.fullmatch(r"req_[0-9a-f]{32}", answer.headers["x-request-id"])


async def test_the_request_id_reaches_the_log_of_events() -> None:
    """What the client sees is what the auditor finds, streamed and not."""
    async with running_server() as running:
        for stream in (True, False):
            answer = await running.http.post(
                "/v1/chat/completions",
                json={"model": "default", "messages": [{"role": "user", "content": "x"}], "stream": stream},
                headers={"x-request-id": f"mine-{stream}"},
            )
            assert answer.headers["x-request-id"] == f"mine-{stream}"
        recorded = {entry.header.request_id for entry in await running.log()}
        assert recorded == {"mine-True", "mine-False"}


async def test_one_line_per_request_and_never_content(caplog: pytest.LogCaptureFixture) -> None:
    """Method, path, status, time and id are logged; neither the conversation nor the query is."""
    caplog.set_level(logging.INFO, logger="manent.http")
    async with running_server() as running:
        secret = [{"role": "user", "content": "topsecret"}]
        await running.chat(messages=secret)
        await running.chat(messages=secret, stream=True)
        await running.chat(messages=secret, topsecret=1)
        await running.http.get("/v1/models?topsecret=1")
    records = [record for record in caplog.records if record.name == "manent.http"]
    lines = [record.getMessage() for record in records]
    assert lines[:2] == ["POST /v1/chat/completions 200", "POST /v1/chat/completions 200 stream done"]
    assert lines[3] == "GET /v1/models 400"
    assert len(lines) == 4
    for record in records:
        assert re.fullmatch(r"req_\w+", record.__dict__["request_id"])
        assert record.__dict__["duration_ms"] > 0
    assert "topsecret" not in "".join(str(record.__dict__) for record in records)


async def test_many_applications_live_in_one_process() -> None:
    """No state is shared: two servers run at once, and a closed one is forgotten."""
    async with running_server() as one, running_server() as other:
        await one.chat()
        assert len(await one.log()) == 2
        assert await other.log() == []
        assert (await other.chat()).headers.get("alt-svc") is None
    assert create_app(one.services, HttpLimits()).name != create_app(one.services, HttpLimits()).name
