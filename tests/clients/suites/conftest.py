"""Which tests of LangChain's own suite stand for it: they are not ours to decorate."""

from __future__ import annotations

import pytest

LANGCHAIN = ("test_astream[model0]", "test_tool_calling[model0]", "test_embed_query")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark them."""
    for item in items:
        if item.name in LANGCHAIN:
            item.add_marker("representative")
