"""docs/reference/metrics.md, made from the catalog.

python -m manent.adapters.metrics.metrics_docs docs/reference/metrics.md
"""

from __future__ import annotations

import sys
from pathlib import Path

from manent.adapters.metrics.catalog import METRICS

HEAD = """# Metrics

What `/metrics` tells ([how to monitor](../how-to/monitor.md)). This page is made from `adapters/metrics/catalog.py`;
`make test` compares the two. Histograms have `_bucket`, `_sum` and `_count`. Labels: `gen_ai_request_model` is the name
that was asked for, `gen_ai_response_model` the model that answers; names that the registry does not know are `unknown`.

| metric | kind | labels | says |
|---|---|---|---|
"""


def render_page() -> str:
    """The page."""
    rows = (
        f"| `{metric.name}` | {metric.kind} | {', '.join(f'`{label}`' for label in metric.labels)} | {metric.says} |\n"
        for metric in METRICS
    )
    return HEAD + "".join(rows)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(render_page(), encoding="utf-8")
