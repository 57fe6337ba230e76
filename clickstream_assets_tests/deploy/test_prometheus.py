"""Alert rules and dashboard: what promtool says of them, and that the code has each metric and label that they name."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from clickstream_assets.catalogue.metrics import METRICS, Kind
from clickstream_assets_tests.deploy.files import ROOT, SERVICES
from clickstream_assets_tests.deploy.monitoring import DASHBOARD, PROMETHEUS, alert_rules, program

ALERTS = Path(__file__).with_name("alerts.yaml")
SERIES = re.compile(r"(clickstream[\w:]+)(?:\{(.*?)\})?")
GROUPED = re.compile(r"\b(?:by|on|without|ignoring|group_left|group_right) *\((.*?)\)")
MATCHED = re.compile(r"(\w+) *(?:=~|!~|!=|=)")


class Expression(NamedTuple):
    where: str
    text: str

    @property
    def series(self) -> set[str]:
        return {name for name, _ in SERIES.findall(self.text)}

    @property
    def labels(self) -> set[str]:
        """Labels that it selects or groups by."""
        grouped = ",".join(GROUPED.findall(self.text))
        selected = [label for _, matchers in SERIES.findall(self.text) for label in MATCHED.findall(matchers)]
        return {*selected, *re.findall(r"\w+", grouped)}


def panels() -> list[dict[str, Any]]:
    return [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"]


def of_dashboard() -> Iterator[Expression]:
    for panel in panels():
        for target in panel["targets"]:
            yield Expression(panel["title"], target["expr"].replace("$__rate_interval", "5m"))


EXPRESSIONS = [
    *(Expression(rule.get("alert") or rule["record"], rule["expr"]) for rule in alert_rules()),
    *of_dashboard(),
]
RECORDED = {rule["record"]: rule["expr"] for rule in alert_rules() if "record" in rule}
each_expression = pytest.mark.parametrize("expression", EXPRESSIONS, ids=lambda expression: expression.where)


def samples_of(series: str) -> dict[str, set[str]]:
    """Names of the samples that a series stands for, with their labels; of a recorded one, those that it is made of."""
    if series in RECORDED:
        return {
            name: labels
            for part in SERIES.findall(RECORDED[series])
            for name, labels in samples_of(part[0]).items()
        }
    metric = METRICS.get(series) or METRICS.get(re.sub("_(bucket|count|sum)$", "", series))
    assert metric, f"no metric is called {series}"
    if metric.kind is Kind.HISTOGRAM:
        assert series != metric.name, "a histogram has only its buckets, sum and count"
    return {series: {*metric.labels, *(["le"] if series.endswith("_bucket") else [])}}


@each_expression
def test_every_metric_and_label_that_is_named_is_the_codes(expression: Expression):
    known = [samples_of(series) for series in expression.series]
    assert known, "it is about no metric of ours"
    assert expression.labels <= {label for of_one in known for labels in of_one.values() for label in labels}


def test_every_metric_is_on_the_dashboard():
    shown = {
        name for expression in of_dashboard() for series in expression.series for name in samples_of(series)
    }
    assert {re.sub("_(bucket|count|sum)$", "", name) for name in shown} == set(METRICS)


def test_promtool_accepts_the_rules_and_the_configuration():
    checked = program("promtool", "check", "config", str(PROMETHEUS / "prometheus.yml"))
    assert checked.returncode == 0, checked.stderr


@pytest.mark.slow
def test_each_alert_fires_when_it_is_to_and_not_otherwise():
    tested = program("promtool", "test", "rules", str(ALERTS))
    assert tested.returncode == 0, tested.stdout + tested.stderr
    cases = yaml.safe_load(ALERTS.read_text())["tests"]
    fired = {
        alert["alertname"] for case in cases for alert in case["alert_rule_test"] if alert.get("exp_alerts")
    }
    assert fired == {rule["alert"] for rule in alert_rules() if "alert" in rule}


def test_promtool_accepts_the_dashboards_expressions(tmp_path: Path):
    rules = [{"record": f"panel:{n}", "expr": expression.text} for n, expression in enumerate(of_dashboard())]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    checked = program("promtool", "check", "rules", str(tmp_path / "rules.yaml"))
    assert checked.returncode == 0, checked.stderr


def test_alertmanager_accepts_its_configuration():
    checked = program("amtool", "check-config", str(PROMETHEUS / "alertmanager.yml"))
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_an_alert_says_how_urgent_it_is_and_what_to_do():
    for rule in alert_rules():
        if "alert" in rule:
            assert rule["labels"]["severity"] in ("critical", "warning")
            assert set(rule["annotations"]) == {"summary", "description", "runbook"}


def test_panels_are_told_apart_and_do_not_cover_each_other():
    dashboard = json.loads(DASHBOARD.read_text())
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in dashboard["panels"])
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24
    (variable,) = dashboard["templating"]["list"]
    for panel in panels():
        assert panel["description"]
        assert panel["datasource"] == {"type": "prometheus", "uid": f"${{{variable['name']}}}"}


def test_composes_prometheus_asks_the_api_and_tells_alertmanager():
    configuration = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    (scraped,) = configuration["scrape_configs"]
    (alertmanager,) = configuration["alerting"]["alertmanagers"]
    assert scraped["static_configs"] == [{"targets": [f"api:{SERVICES['api']['environment']['API_PORT']}"]}]
    (listening,) = SERVICES["alertmanager"]["ports"]
    assert alertmanager["static_configs"] == [{"targets": [f"alertmanager:{listening.rpartition(':')[2]}"]}]
    (source,) = yaml.safe_load(
        (ROOT / "deploy/grafana/provisioning/datasources/prometheus.yaml").read_text()
    )["datasources"]
    (published,) = SERVICES["prometheus"]["ports"]
    assert source["url"] == f"http://prometheus:{published.rpartition(':')[2]}"
    (provider,) = yaml.safe_load(
        (ROOT / "deploy/grafana/provisioning/dashboards/clickstream.yaml").read_text()
    )["providers"]
    mounts = dict(volume.split(":")[:2] for volume in SERVICES["grafana"]["volumes"])
    assert Path(mounts["./deploy/grafana/dashboard.json"]).parent == Path(provider["options"]["path"])
