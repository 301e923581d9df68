"""The error table: complete, and right about retries."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from manent.adapters.http.errors import ERRORS, RequestRefused, error_body, error_headers, row_of
from manent.domain.errors import (
    DomainError,
    EngineBusy,
    HistoryConflict,
    SessionBusy,
    SessionNotFound,
    StoreUnavailable,
)


def subclasses(of: type[DomainError]) -> Iterator[type[DomainError]]:
    """All of them, however deep."""
    for found in of.__subclasses__():
        yield found
        yield from subclasses(found)


def test_every_domain_error_has_a_row() -> None:
    """An error of the domain without a status would be told as a defect."""
    codes = {error.code for error in subclasses(DomainError) if error.__module__ == "manent.domain.errors"}
    assert codes <= set(ERRORS)
    assert len(codes) > 15


def test_an_error_is_told_in_openais_envelope() -> None:
    """message, type, param and code, and nothing else."""
    assert json.loads(error_body(SessionNotFound("no session 's' was found"))) == {
        "error": {
            "message": "no session 's' was found",
            "type": "invalid_request_error",
            "param": "session_id",
            "code": "session_not_found",
        }
    }


@pytest.mark.parametrize("error", [SessionBusy("x"), HistoryConflict("x")])
def test_a_conflict_is_not_retried(error: DomainError) -> None:
    """OpenAI's SDKs retry every 409 unless they are told not to."""
    assert row_of(error).status == 409
    assert error_headers(error)["x-should-retry"] == "false"


@pytest.mark.parametrize(
    ("error", "seconds", "milliseconds"),
    [(EngineBusy("x"), "2", "2000"), (StoreUnavailable("x", retry_after_s=0.25), "1", "250")],
)
def test_what_passes_says_when(error: DomainError, seconds: str, milliseconds: str) -> None:
    """Retry-After is whole seconds and never too early; the SDKs' own header is exact."""
    assert row_of(error).status == 503
    assert error_headers(error)["retry-after"] == seconds
    assert error_headers(error)["retry-after-ms"] == milliseconds
    assert "x-should-retry" not in error_headers(error)


def test_an_unknown_code_is_a_defect() -> None:
    """A code that the table does not know is answered with 500."""
    assert row_of(RequestRefused("brand_new", "x")).status == 500
