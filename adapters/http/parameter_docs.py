"""The page of the documentation that says which parameters are honored, made from the table that decides it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from manent.adapters.http import anthropic_parameters as anthropic
from manent.adapters.http import parameters, wire_keys
from manent.adapters.http import response_parameters as responses
from manent.adapters.http.parameter_table import Parameter
from manent.adapters.http.wire_embeddings import EMBEDDING_PARAMETERS
from manent.adapters.http.wire_text import TEXT_PARAMETERS

HEAD = """# HTTP parameters

Made from `adapters/http/parameters.py`; a test compares the two, and
`python -m manent.adapters.http.parameter_docs docs/reference/parameters.md` writes it anew. What is refused gets 400
`unsupported_parameter` with its name, unless its value asks for nothing (null, or a value in the last column); what is
unknown gets 400 `unknown_parameter`. Nothing is ignored in silence.
"""
TABLES: Sequence[tuple[str, Sequence[Parameter]]] = (
    ("POST /v1/chat/completions", parameters.CHAT_PARAMETERS),
    ("POST /v1/chat/completions/{id}", parameters.STORED_PARAMETERS),
    ("POST /v1/completions", TEXT_PARAMETERS),
    ("stream_options", parameters.STREAM_OPTIONS),
    ("messages[], and POST /v1/sessions/{id}/messages", parameters.MESSAGE_PARAMETERS),
    ("messages[].content[]", parameters.PART_PARAMETERS),
    ("POST /v1/responses", responses.RESPONSE_PARAMETERS),
    ("input[] of responses, items[] of conversations, by type", responses.ITEM_PARAMETERS),
    ("content[] and output[] of items, by type", responses.ITEM_PART_PARAMETERS),
    ("tools[] of responses, by type", responses.TOOL_PARAMETERS),
    ("POST /v1/responses/input_tokens", responses.INPUT_PARAMETERS),
    ("POST /v1/conversations", responses.CONVERSATION_PARAMETERS),
    ("POST /v1/conversations/{id}", responses.CONVERSATION_UPDATE_PARAMETERS),
    ("POST /v1/conversations/{id}/items", responses.ITEMS_PARAMETERS),
    ("POST /v1/embeddings", EMBEDDING_PARAMETERS),
    ("POST /v1/messages", anthropic.MESSAGE_PARAMETERS),
    ("POST /v1/messages/count_tokens", anthropic.COUNT_PARAMETERS),
    ("messages[].content[] of these, by type", anthropic.BLOCK_PARAMETERS),
    ("messages[].content[].image_url", parameters.IMAGE_PARAMETERS),
    ("POST /v1/sessions", parameters.SESSION_PARAMETERS),
    ("POST /v1/sessions/{id}", parameters.SESSION_UPDATE_PARAMETERS),
    ("POST /v1/sessions/{id}/fork", parameters.FORK_PARAMETERS),
    ("POST /v1/sessions/{id}/rerun", parameters.RERUN_PARAMETERS),
    ("POST /v1/chat/completions/{id}/verify", parameters.VERIFY_PARAMETERS),
    ("POST /v1/keys", wire_keys.KEY_PARAMETERS),
    ("POST /v1/keys/{id}", wire_keys.KEY_UPDATE_PARAMETERS),
    ("POST /v1/keys/{id}/rotate", wire_keys.KEY_ROTATION_PARAMETERS),
    ("POST /v1/keys/{id}/revoke", wire_keys.KEY_REVOCATION_PARAMETERS),
)


def render_page() -> str:
    """The page as Markdown."""
    sections = [HEAD]
    for title, table in TABLES:
        rows = [_row(row) for row in table]
        head = ["| parameter | | | asks for nothing |", "|---|---|---|---|"]
        sections.append("\n".join([f"## {title}\n", *head, *rows]) + "\n")
    return "\n".join(sections)


def _row(row: Parameter) -> str:
    neutral = ", ".join(f"`{json.dumps(value)}`" for value in row.neutral)
    return f"| `{row.name}` | {row.treatment} | {row.says} | {neutral} |"


if __name__ == "__main__":
    import sys

    Path(sys.argv[1]).write_text(render_page(), encoding="utf-8")
