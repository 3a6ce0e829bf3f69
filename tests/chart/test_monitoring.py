"""Dashboards and alert rules read metrics that a running mesh really has, and every alert has its runbook."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from openai import OpenAI
from prometheus_client.parser import text_string_to_metric_families

from tests.chart import promql
from tests.chart.charts import CHART
from tests.mesh.mesh import ROOT, Mesh, until
from tests.tools import requires_tool, tool

MESH = ("router", "provider-proxy", "cache", "accounting")
OF_PROMETHEUS = {"up"}  # made by the scrape itself
TARGET_LABELS = {"job", "instance", "le"}
RULES = yaml.safe_load((CHART / "rules" / "modelmuxer.yaml").read_text())
ALERTS = {rule["alert"]: rule for group in RULES["groups"] for rule in group["rules"]}
DASHBOARDS = {path.stem: json.loads(path.read_text()) for path in sorted((CHART / "dashboards").glob("*.json"))}
RUNBOOKS = {str(path.relative_to(ROOT)) for path in (ROOT / "docs" / "runbooks").glob("*.md")}

Series = dict[str, set[str]]


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Series]:
    """The names of the series of a mesh that has served, each with the labels that were seen on it."""
    with Mesh(tmp_path_factory.mktemp("monitoring") / "home") as mesh:
        client = OpenAI(base_url=f"{mesh.http}/v1", api_key=mesh.key, max_retries=0)
        question: Any = [{"role": "user", "content": "Explain TCP slow start"}]
        for _ in client.chat.completions.create(model="auto", messages=question, stream=True):
            pass
        client.chat.completions.create(model="auto", messages=question)
        until(lambda: 'modelmuxer_ledger_entries_total{state="posted"}' in mesh.metrics("accounting"))
        found: Series = {}
        for service in MESH:
            for name, labels in _series(mesh.metrics(service)):
                found.setdefault(name, set()).update(labels)
        yield found


def _series(text: str) -> Iterator[tuple[str, set[str]]]:
    for family in text_string_to_metric_families(text):
        suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "summary": ("_sum", "_count")}
        for suffix in suffixes.get(family.type, ("",)):
            yield family.name + suffix, set()
        for sample in family.samples:
            yield sample.name, set(sample.labels)


def _expressions() -> Iterator[tuple[str, str]]:
    for alert, rule in ALERTS.items():
        yield alert, rule["expr"]
    for name, dashboard in DASHBOARDS.items():
        for panel in dashboard["panels"]:
            for target in panel.get("targets", []):
                yield (
                    f"{name}: {panel['title']}",
                    target["expr"].replace("$__rate_interval", "5m").replace("$job", "job"),
                )


EXPRESSIONS = dict(_expressions())


def test_every_metric_that_is_read_exists(series: Series) -> None:
    missing = {
        where: names
        for where, each in EXPRESSIONS.items()
        if (names := promql.metrics(each) - set(series) - OF_PROMETHEUS)
    }
    assert missing == {}


def test_every_label_that_is_matched_or_grouped_by_exists(series: Series) -> None:
    wrong = []
    for where, expression in EXPRESSIONS.items():
        labels = {label for name in promql.metrics(expression) for label in series.get(name, ())} | TARGET_LABELS
        # A counter with labels has no series before its first event: nothing can be said of it here.
        unseen = [name for name in promql.metrics(expression) if not series.get(name)]
        wrong += [
            f"{where}: {name} has no {label}"
            for name, label in promql.selected_labels(expression)
            if series.get(name) and label not in series[name] | TARGET_LABELS
        ]
        if not unseen:
            wrong += [f"{where}: groups by {label}" for label in promql.grouped_labels(expression) - labels]
    assert wrong == []


def test_a_metric_that_does_not_exist_would_be_found() -> None:
    expression = (
        'sum by (model) (rate(modelmuxer_reqests_total{status!~"a b{c}"}[5m])) / on (job) group_left (x) up offset 5m'
    )
    assert promql.metrics(expression.replace("offset 5m", "")) == {"modelmuxer_reqests_total", "up"}
    assert list(promql.selected_labels('a_total{b="c", d!~"e"}')) == [("a_total", "b"), ("a_total", "d")]
    assert promql.grouped_labels(expression) == {"model", "job", "x"}


@pytest.mark.parametrize("alert", ALERTS)
def test_each_alert_links_a_runbook_that_names_it(alert: str) -> None:
    rule = ALERTS[alert]
    assert rule["labels"]["severity"] in {"info", "warning", "critical"}
    path = rule["annotations"]["runbook_url"]
    assert path in RUNBOOKS
    assert f"**{alert}**" in (ROOT / path).read_text()


def test_every_runbook_belongs_to_an_alert_and_its_links_lead_somewhere() -> None:
    assert {rule["annotations"]["runbook_url"] for rule in ALERTS.values()} == RUNBOOKS
    for path in RUNBOOKS:
        for link in re.findall(r"\]\(([^)#]+)", (ROOT / path).read_text()):
            assert (ROOT / path).parent.joinpath(link).exists(), (path, link)


@pytest.mark.parametrize("name", DASHBOARDS)
def test_dashboards_are_whole(name: str) -> None:
    dashboard = DASHBOARDS[name]
    assert dashboard["uid"] == f"modelmuxer-{name}"
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + dx, at["y"] + dy) for dx in range(at["w"]) for dy in range(at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24, panel["title"]
        taken |= cells


@requires_tool("promtool")
def test_promtool_takes_the_rules() -> None:
    _promtool("check", "rules", "--lint-fatal", CHART / "rules" / "modelmuxer.yaml")


@requires_tool("promtool")
def test_alerts_fire_when_they_should_and_not_before() -> None:
    _promtool("test", "rules", Path(__file__).parent / "rules.test.yaml")


def test_every_alert_has_a_unit_test() -> None:
    tests = yaml.safe_load((Path(__file__).parent / "rules.test.yaml").read_text())["tests"]
    fired = {each["alertname"] for test in tests for each in test["alert_rule_test"] if each["exp_alerts"]}
    assert fired == set(ALERTS)


def _promtool(*arguments: str | Path) -> None:
    done = subprocess.run([tool("promtool"), *map(str, arguments)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
