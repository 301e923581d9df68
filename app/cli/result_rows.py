"""Rows of a query's answer on standard output: tables for people, JSON Lines and CSV for programs."""

from __future__ import annotations

import base64
import csv
import sys
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import msgspec
from rich.table import Table

from manent.app.cli.output import literal, out

if TYPE_CHECKING:
    from manent.adapters.analysis.query import Answer

INT64 = range(-(2**63), 2**64)


def print_tables(answer: Answer) -> None:
    """A table for each page."""
    for rows in answer.pages:
        table = Table(box=None)
        for name in answer.columns:
            table.add_column(literal(name), overflow="fold")
        for row in rows:
            table.add_row(*("" if cell is None else literal(_text(cell)) for cell in row))
        out.print(table)


def print_json_lines(answer: Answer) -> None:
    """An object for each row: times as RFC 3339, bytes base64, integers beyond 64 bits as strings, JSON as it is."""
    encoder = msgspec.json.Encoder(decimal_format="number")
    cells = [_raw if name in answer.json_columns else _plain for name in answer.columns]
    for rows in answer.pages:
        lines = [
            encoder.encode({name: cell(value) for name, cell, value in zip(answer.columns, cells, row, strict=True)})
            for row in rows
        ]
        sys.stdout.buffer.write(b"\n".join(lines) + b"\n")
    sys.stdout.buffer.flush()


def print_csv(answer: Answer) -> None:
    """RFC 4180 with a header. NULL is an empty field; lists and structs are JSON."""
    writer = csv.writer(sys.stdout)
    writer.writerow(answer.columns)
    for rows in answer.pages:
        writer.writerows(["" if cell is None else _text(cell) for cell in row] for row in rows)
    sys.stdout.flush()


def _text(cell: Any) -> str:
    match cell:
        case str():
            return cell
        case datetime() | date() | time():
            return cell.isoformat()
        case bytes():
            return base64.b64encode(cell).decode("ascii")
        case list() | tuple() | dict():
            return msgspec.json.encode(_plain(cell)).decode()
        case bool():
            return "true" if cell else "false"
        case _:
            return str(cell)


def _raw(cell: str | None) -> msgspec.Raw | None:
    return None if cell is None else msgspec.Raw(cell)


def _plain(cell: Any) -> Any:
    """What JSON can hold: the rest as text."""
    match cell:
        case list() | tuple():
            return [_plain(part) for part in cell]
        case dict():
            return {_text(key): _plain(value) for key, value in cell.items()}
        case int() if cell not in INT64:
            return str(cell)
        case timedelta():
            return str(cell)
        case None | str() | int() | float() | bytes() | bool() | datetime() | date() | time() | Decimal():
            return cell
        case _:
            return str(cell)
