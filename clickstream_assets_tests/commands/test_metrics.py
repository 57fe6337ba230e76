"""The metrics' reference: up to date, and of metrics as Prometheus wants them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from clickstream_assets.catalogue.metrics import METRICS, SECTIONS, Kind, Metric
from clickstream_assets.commands.metrics import metrics_page

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
metrics = pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)


def test_the_page_in_the_docs_is_what_the_command_prints():
    assert PAGE.read_text() == metrics_page(), "run: clickstream metrics > docs/metrics.md"


def test_a_metric_is_listed_once():
    assert len(METRICS) == sum(map(len, SECTIONS.values()))


@metrics
def test_a_name_says_the_unit_as_prometheus_has_it(metric: Metric):
    # https://prometheus.io/docs/practices/naming/
    assert re.fullmatch("clickstream(_[a-z]+)+", metric.name)
    assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER)


@metrics
def test_no_label_is_one_that_prometheus_gives_to_what_it_scrapes(metric: Metric):
    # It would be called exported_… there. The last are the operator's: https://prometheus-operator.dev
    theirs = {"job", "instance", "container", "endpoint", "namespace", "node", "pod", "service"}
    assert not theirs & set(metric.labels)


@metrics
def test_what_says_how_old_a_value_is_can_be_joined_to_it(metric: Metric):
    if metric.age:
        age = METRICS[metric.age]
        assert age.name.endswith("_timestamp_seconds")
        assert set(age.labels) <= {*metric.labels, "source"}
