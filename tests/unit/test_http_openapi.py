"""The description of the API: complete, consistent, and readable by the page that shows it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from manent.adapters.http.errors import ERRORS
from manent.adapters.http.openapi import build_documents
from manent.adapters.http.parameters import CHAT_PARAMETERS
from manent.adapters.http.routes import ROUTES

DOCUMENTS = build_documents("1.2.3")
OPENAPI: dict[str, Any] = json.loads(DOCUMENTS.openapi)
OPENAPI_3_0: dict[str, Any] = json.loads(DOCUMENTS.openapi_3_0)


def nodes(node: Any) -> Iterator[dict[str, Any]]:
    """Every object of a document."""
    if isinstance(node, dict):
        yield node
        for value in node.values():
            yield from nodes(value)
    elif isinstance(node, list):
        for item in node:
            yield from nodes(item)


def operations(document: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Every operation with its path."""
    return [(path, operation) for path, item in document["paths"].items() for operation in item.values()]


@pytest.mark.parametrize("document", [OPENAPI, OPENAPI_3_0], ids=["3.1", "3.0"])
def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    """No $ref dangles."""
    references = [node["$ref"] for node in nodes(document) if "$ref" in node]
    assert references
    for reference in references:
        place: Any = document
        for step in reference.removeprefix("#/").split("/"):
            place = place[step]


def test_operations_are_whole() -> None:
    """Ids are unique, path parameters are declared, and every operation tells its errors."""
    found = operations(OPENAPI)
    ids = [operation["operationId"] for _, operation in found]
    assert len(ids) == len(set(ids)) == sum(len(route.paths) for route in ROUTES)
    for path, operation in found:
        declared = {row["name"] for row in operation["parameters"] if row["in"] == "path"}
        assert declared == {step[1:-1] for step in path.split("/") if step.startswith("{")}
        assert any(status >= "400" for status in operation["responses"])


def test_every_code_of_a_route_is_in_the_table() -> None:
    """A route promises no error that the table does not know."""
    assert {code for route in ROUTES for code in route.errors} <= set(ERRORS)


def test_the_chat_schema_shows_every_parameter() -> None:
    """Readers see what is honored, and which values of the rest are accepted."""
    properties = OPENAPI["components"]["schemas"]["ChatRequest"]["properties"]
    assert set(properties) == {row.name for row in CHAT_PARAMETERS}
    assert all(schema.get("description") or "$ref" in schema for schema in properties.values())


def test_the_page_gets_a_description_it_can_read() -> None:
    """The bundled Swagger UI reads 3.0: none of the words of 3.1 are left in its copy."""
    assert OPENAPI_3_0["openapi"] == "3.0.3"
    assert set(OPENAPI_3_0["paths"]) == set(OPENAPI["paths"])
    for node in nodes(OPENAPI_3_0["components"]["schemas"]):
        assert node.get("type") != "null"
        assert not isinstance(node.get("exclusiveMinimum"), int | float) or node["exclusiveMinimum"] is True
        if "properties" not in node:
            assert "const" not in node
    assert OPENAPI_3_0["components"]["schemas"]["ChatRequest"]["properties"]["temperature"]["nullable"] is True
