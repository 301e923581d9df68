"""Request bodies to JSON objects, strictly (RFC 8259, I-JSON): what is ambiguous is refused with its place."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from manent.adapters.http.errors import RequestRefused
from manent.adapters.http.request import HttpRequest

LARGE_BODY_BYTES = 256 * 1024

Read = TypeVar("Read")


class _Ambiguous(ValueError):
    """JSON that parsers read differently."""


async def read_body(request: HttpRequest, read: Callable[[], Read]) -> Read:
    """What ``read`` makes of the body; of a large one in a thread, so that it does not hold up everybody else."""
    if len(request.body) < LARGE_BODY_BYTES:
        return read()
    return await asyncio.to_thread(read)


def json_object(request: HttpRequest, *, may_be_empty: bool = False) -> dict[str, Any]:
    """The body of ``request``.

    Raises:
        RequestRefused: it is not declared as JSON, or is not one JSON object.
    """
    if may_be_empty and not request.body:
        return {}
    check_content_type(request.headers.get("content-type"), request.headers.get("content-encoding"))
    value = parse_json(request.body)
    if not isinstance(value, dict):
        raise _invalid(f"the body is {_kind(value)}; it must be a JSON object")
    return value


def check_content_type(content_type: str | None, content_encoding: str | None) -> None:
    """Refuse what is not declared as UTF-8 JSON.

    A browser lets any site post ``text/plain`` to a server on this machine; ``application/json`` it asks about first.
    """
    if content_type == "application/json" and content_encoding is None:
        return
    media_type, _, parameters = (content_type or "").partition(";")
    media_type = media_type.strip().lower()
    is_json = media_type == "application/json" or (
        media_type.startswith("application/") and media_type.endswith("+json")
    )
    charset = parameters.lower().replace(" ", "").replace('"', "")
    if not is_json or ("charset=" in charset and "charset=utf-8" not in charset):
        raise RequestRefused(
            "unsupported_media_type", f"content-type is {content_type!r}; send 'application/json' in UTF-8"
        )
    if content_encoding not in {None, "", "identity"}:
        raise RequestRefused("unsupported_media_type", f"content-encoding {content_encoding!r} is not supported")


def parse_json(body: bytes) -> object:
    """The JSON value in ``body``.

    Raises:
        RequestRefused: it is malformed, nested too deeply, has a key twice, NaN or infinity, or half a surrogate pair.
    """
    try:
        text = body.decode("utf-8")
        value: object = _DECODER.decode(text)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeDecodeError as error:
        raise _invalid(f"the body is not UTF-8: byte {error.start} cannot be decoded") from None
    except UnicodeEncodeError:
        raise _invalid("a string holds half of a surrogate pair, which is no character") from None
    except json.JSONDecodeError as error:
        raise _invalid(_syntax(error)) from None
    except RecursionError:
        raise _invalid("the body is nested too deeply") from None
    except _Ambiguous as error:
        raise _invalid(str(error)) from None
    except ValueError:
        raise _invalid("a number has too many digits") from None
    return value


def _syntax(error: json.JSONDecodeError) -> str:
    if not error.doc.strip():
        return "the body is empty"
    if error.doc.startswith("\ufeff"):
        return "it begins with a BOM, which JSON does not have (RFC 8259, 8.1)"
    return f"{error.msg.removesuffix(' at')} at line {error.lineno} column {error.colno}"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        firsts = iter(found)  # they have the order of the pairs: the first pair that is out of step is the repetition
        twice = next(key for key, _ in pairs if key != next(firsts, None))
        raise _Ambiguous(f"the key {twice[:80]!r} appears twice in one object")
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise _Ambiguous(f"{name} is not JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse_constant)


def _kind(value: object) -> str:
    names = {list: "an array", str: "a string", bool: "a boolean", int: "a number", float: "a number"}
    return names.get(type(value), "null")


def _invalid(what: str) -> RequestRefused:
    return RequestRefused("invalid_json", f"the request's body could not be read as JSON: {what}")
