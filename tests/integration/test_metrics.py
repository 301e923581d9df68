"""Metrics: what the dashboard shows and the alerts watch is there, moves, and stays small; a scrape never fails."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from manent.adapters.metrics.catalog import BY_NAME, METRICS, Kind
from manent.adapters.metrics.metrics_docs import render_page
from tests.support.scrapes import Scraped, everything_happens
from tests.support.valkey import serving_valkey

REPOSITORY = Path(__file__).parents[2]
MONITORING = REPOSITORY / "docs/how-to/monitoring"
NAME = re.compile(r"\b(?:manent|gen_ai|http|process)_[a-z0-9_]+(?=[\s{\[)/]|$)")
MATCHERS = re.compile(r"([a-z_]+)\{([^}]*)\}")
GROUPED = re.compile(r"by \(([^)]*)\)")
SUFFIXES = ("_bucket", "_sum", "_count")


def expressions() -> Iterator[tuple[str, str]]:
    """Every expression of the dashboard and of the alert rules, with where it stands."""
    dashboard = json.loads((MONITORING / "dashboard.json").read_text(encoding="utf-8"))
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    rules: dict[str, Any] = yaml.safe_load((MONITORING / "alerts.yml").read_text(encoding="utf-8"))
    for rule in rules["groups"][0]["rules"]:
        yield rule["alert"], rule["expr"]


def names_in(expression: str) -> list[str]:
    """The series that an expression asks for, less the labels in it."""
    return NAME.findall(GROUPED.sub("", MATCHERS.sub(r"\1{}", expression)))


EXPRESSIONS = list(expressions())
NAMES = sorted({name for _, expression in EXPRESSIONS for name in names_in(expression)})
# What never changes while a process runs is only there.
CONSTANT = {"manent_build_info", "process_max_fds", "process_start_time_seconds", "manent_memory_budget_bytes"}


def metric_of(name: str) -> str:
    """The metric of the catalog that a series belongs to."""
    for suffix in SUFFIXES:
        whole = name.removesuffix(suffix)
        if whole != name and whole in BY_NAME and BY_NAME[whole].kind is Kind.HISTOGRAM:
            return whole
    return name


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Scraped:
    """What a scraper saw of a server to which everything happened."""
    home = tmp_path_factory.mktemp("home")
    with serving_valkey() as valkey:
        return asyncio.run(everything_happens(home, valkey))


@pytest.mark.parametrize("name", NAMES)
def test_what_is_shown_and_watched_exists_and_moves(scraped: Scraped, name: str) -> None:
    """Each series of the dashboard and of the alerts has values, and they change with what happens."""
    values = [scrape.get(name, {}) for scrape in scraped.scrapes]
    assert any(values), name
    assert name in CONSTANT or any(before != after for before, after in pairwise(values)), name


def test_every_metric_is_shown_and_moves(scraped: Scraped) -> None:
    """What is counted, somebody can see: the dashboard has all of the catalog."""
    shown = {metric_of(name) for name in NAMES}
    assert BY_NAME.keys() - shown - {"process_virtual_memory_bytes", "process_start_time_seconds"} == set()
    exposed = {metric_of(name) for scrape in scraped.scrapes for name in scrape}
    assert {name for name in exposed if not name.endswith("_created")} == set(BY_NAME)


@pytest.mark.parametrize(("place", "expression"), EXPRESSIONS, ids=range(len(EXPRESSIONS)))
def test_expressions_use_labels_that_exist(place: str, expression: str) -> None:
    """A label that no metric has would make a panel empty, and an alert silent."""
    names = [metric_of(name) for name in names_in(expression)]
    assert names or expression.startswith("up"), place
    labels = {"le"}.union(*(BY_NAME[name].labels for name in names))
    for name, matchers in MATCHERS.findall(expression):
        if name != "up":
            asked = {matcher.partition("=")[0].rstrip("!~") for matcher in matchers.split(",")}
            assert asked <= set(BY_NAME[metric_of(name)].labels), place
    for grouped in GROUPED.findall(expression):
        assert {label.strip() for label in grouped.split(",")} <= labels, place


def test_labels_have_few_values(scraped: Scraped) -> None:
    """Neither a model that nobody has nor a path that nobody serves makes a series of its own."""
    last = scraped.scrapes[-1]
    everything = {value for values in last.values() for labels in values for _, value in labels}
    assert "unknown" in everything
    assert not any("nobody" in value for value in everything)
    routes = {dict(labels)["http_route"] for labels in last["http_server_request_duration_seconds_count"]}
    assert "/v1/chat/completions" in routes
    assert len(scraped.texts[-1]) < 300_000


def test_what_was_counted_is_what_happened(scraped: Scraped) -> None:
    """The figures are right, and not only there."""
    operations = scraped.scrapes[-1]["manent_operations_total"]
    outcomes: dict[str, float] = {}
    for labels, value in operations.items():
        outcomes[dict(labels)["outcome"]] = outcomes.get(dict(labels)["outcome"], 0) + value
    # Refused: an unknown model, a place that its client gave up, and two that the database did not take.
    assert outcomes == {"generated": 4, "refused": 4, "failed": 2}
    tokens = scraped.scrapes[-1]["manent_tokens_total"]
    assert tokens[("gen_ai_response_model", "scripted"), ("gen_ai_token_type", "reasoning")] == 2
    (commits,) = scraped.scrapes[-1]["manent_commits_refused_total"].values()
    assert commits >= 2


def test_a_part_that_cannot_be_read_is_left_out(scraped: Scraped) -> None:
    """The scrape goes on without it, and says so."""
    assert scraped.scrapes[-1]["manent_samples_failed_total"][(("part", "broken"),)] >= 1
    assert scraped.scrapes[-1]["manent_degraded"][(("part", "redis"),)] == 1


def test_docs_metrics_are_those_of_the_code() -> None:
    """docs/reference/metrics.md is made from the catalog; names and units follow Prometheus's rules."""
    assert (REPOSITORY / "docs/reference/metrics.md").read_text(encoding="utf-8") == render_page()
    for metric in METRICS:
        assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER), metric.name
        assert bool(metric.buckets) == (metric.kind is Kind.HISTOGRAM), metric.name
        assert list(metric.buckets) == sorted(metric.buckets), metric.name
