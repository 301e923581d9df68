"""Tools for models whose template knows none: a system message that lists them, calls and results as text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from manent.adapters.inference.tool_dialect import ToolDialect, as_template_sees
from manent.domain.output_shape import Tool

_LISTED = """You can call functions. They are listed here, a JSON object a line:
{tools}

To call a function, answer with its name and arguments as JSON between {start} and {end}:
{start}
{{"name": "<function>", "arguments": {{<arguments>}}}}
{end}
The results come between <tool_response> and </tool_response>."""


def without_template(
    turns: Sequence[dict[str, Any]], tools: Sequence[Tool], dialect: ToolDialect
) -> list[dict[str, Any]]:
    """``turns`` with roles and words that every template knows."""
    plain = [_plain(turn, dialect) for turn in turns]
    if not tools:
        return plain
    listed = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in as_template_sees(tools))
    text = _LISTED.format(tools=listed, start=dialect.start, end=dialect.end)
    if plain and plain[0]["role"] == "system":
        return [{**plain[0], "content": f"{plain[0]['content']}\n\n{text}"}, *plain[1:]]
    return [{"role": "system", "content": text}, *plain]


def _plain(turn: dict[str, Any], dialect: ToolDialect) -> dict[str, Any]:
    if turn["role"] == "tool":
        return {"role": "user", "content": f"<tool_response>\n{turn['content']}\n</tool_response>"}
    calls = turn.get("tool_calls")
    if not calls:
        return turn
    said = [str(turn["content"])] if turn["content"] else []
    for call in calls:
        function = {"name": call["function"]["name"], "arguments": call["function"]["arguments"]}
        said.append(f"{dialect.start}\n{json.dumps(function, ensure_ascii=False)}\n{dialect.end}")
    return {"role": turn["role"], "content": "\n".join(said)}
