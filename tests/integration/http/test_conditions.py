"""If-Match and If-None-Match, as RFC 9110 writes them: lists, weak tags, several lines, and what is neither."""

from __future__ import annotations

import pytest

from tests.support.http import running_server

START = {"session_id": "s"}


@pytest.mark.parametrize(
    ("value", "status"),
    [
        ('"1"', 200),
        ("*", 200),
        ('"9", "1"', 200),
        (', ,"9",\t"1" ,', 200),
        ('"a,b", "1"', 200),
        ('"2"', 412),
        ('W/"1"', 412),
        ('"01"', 412),
        ('"+1"', 412),
        ('""', 412),
        ('"1 "', 400),
        ('"x-y"', 412),
        (f'"{"9" * 4000}"', 412),
        ("1", 400),
        ('"1', 400),
        ('1"', 400),
        ("'1'", 400),
        ('"1" "2"', 400),
        ('w/"1"', 400),
        ('*, "1"', 400),
        ('"1", *', 400),
        ("", 400),
        (",", 400),
        ('"1", x', 400),
    ],
)
async def test_if_match_is_read_as_the_rfc_has_it(value: str, status: int) -> None:
    """A strong tag of the list that equals the version lets the request through; wrong syntax is never a match."""
    async with running_server() as running:
        await running.http.post("/v1/sessions", json=START)
        answer = await running.http.post("/v1/sessions/s", json={"metadata": {}}, headers={"If-Match": value})
        assert answer.status_code == status
        if status != 200:
            error = answer.json()["error"]
            assert error["code"] == ("invalid_value" if status == 400 else "precondition_failed")
            assert error["param"] == "If-Match"
            assert (await running.http.get("/v1/sessions/s")).json()["version"] == 1


async def test_several_lines_are_one_list() -> None:
    """A proxy may split a list, or join it."""
    async with running_server() as running:
        await running.http.post("/v1/sessions", json=START)
        lines = [("If-Match", '"7"'), ("If-Match", '"1"')]
        assert (await running.http.post("/v1/sessions/s", json={"ttl_s": 9}, headers=lines)).status_code == 200


@pytest.mark.parametrize(
    ("value", "status"), [('"1"', 304), ('W/"1"', 304), ("*", 304), ('"2", "1"', 304), ('"2"', 200), ("1", 400)]
)
@pytest.mark.parametrize("path", ["", "/messages"])
async def test_what_a_client_has_is_not_sent_again(value: str, status: int, path: str) -> None:
    """304 without a body, with the tag; the comparison is the weak one."""
    async with running_server() as running:
        await running.http.post("/v1/sessions", json=START)
        answer = await running.http.get(f"/v1/sessions/s{path}", headers={"If-None-Match": value})
        assert answer.status_code == status
        if status == 304:
            assert (answer.content, answer.headers["etag"]) == (b"", '"1"')
            assert "content-type" not in answer.headers
            assert answer.headers["x-request-id"]
        # The connection is fit for the next request.
        assert (await running.http.get("/v1/sessions/s")).headers["etag"] == '"1"'
