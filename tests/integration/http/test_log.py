"""Checkpoints and proofs over HTTP: who may ask, and what a server without a key says."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from manent.adapters.http.app import create_app
from manent.adapters.http.context import HttpLimits
from manent.adapters.http.server import HttpServer
from manent.adapters.http.wire_log import Checkpoint, CheckpointList, ConsistencyProof, InclusionProof
from manent.adapters.merkle.signer import FileSigner
from manent.adapters.store.checkpoints import MemoryCheckpoints
from manent.app.system import SystemClock
from manent.domain.access import Principal
from manent.domain.usecases.issue_checkpoint import IssueCheckpoint
from manent.domain.usecases.prove_log import ProveLog
from tests.support.http import NO_TLS, running_server

PATHS = (
    ("/v1/log/checkpoint", Checkpoint),
    ("/v1/log/checkpoints", CheckpointList),
    ("/v1/log/proof/inclusion?position=1", InclusionProof),
    ("/v1/log/proof/consistency?old=1", ConsistencyProof),
)


async def test_answers_are_what_is_described(tmp_path: Path) -> None:
    """Every answer fits its model in /openapi.json."""
    async with running_server() as running:
        await running.chat()
        signer = FileSigner(tmp_path, "log_1")
        services = replace(
            running.services,
            proofs=ProveLog(running.store),
            checkpoints=IssueCheckpoint(
                store=running.store, signer=signer, kept=MemoryCheckpoints("log_1"), clock=SystemClock()
            ),
        )
        listening = socket.create_server(("127.0.0.1", 0))
        server = HttpServer(create_app(services, HttpLimits()), listening)
        await server.start()
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        async with httpx.AsyncClient(base_url=address, verify=NO_TLS) as http:
            for path, model in PATHS:
                answer = await http.get(path)
                assert answer.status_code == 200
                model.model_validate_json(answer.content, strict=True)
        await server.close(0.2)


@pytest.mark.parametrize(("path", "_model"), PATHS)
async def test_proofs_are_for_auditors(path: str, _model: type) -> None:
    """Without the scope the answer is 403; a server that has no key says so with a 503."""
    async with running_server(principal=Principal(tenant="acme", subject="ann")) as running:
        answer = await running.http.get(path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "permission_denied")
    async with running_server() as running:
        answer = await running.http.get(path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "store_unavailable")
