"""Rows of keys and values as one JSON object, on either database."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement


class JsonPairs(FunctionElement[Any]):
    """An aggregate of a column of keys and one of values."""

    inherit_cache = True
    type = JSON()


@compiles(JsonPairs, "sqlite")
def _on_sqlite(element: JsonPairs, compiler: SQLCompiler, **options: Any) -> str:
    return f"json_group_object({compiler.process(element.clauses, **options)})"


@compiles(JsonPairs, "postgresql")
def _on_postgresql(element: JsonPairs, compiler: SQLCompiler, **options: Any) -> str:
    return f"json_object_agg({compiler.process(element.clauses, **options)})"
