"""Dashboard and alerts speak of metrics that the server really has, and say what can be true.

Every expression is parsed, and its labels are followed from the selectors up, as Prometheus would: a selector has the labels of its
metric and of its target, an aggregation those it keeps, and the two sides of an operator must agree. So an expression that could
never return anything, because a name, a label or a value is not the server's, is found without a Prometheus.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from itertools import combinations
from pathlib import Path
from typing import Any

import promql_parser as promql
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from models.fake import FakeClassifier
from models.problem import OneLabel
from server.settings import Settings
from tests.server.conftest import running
from tests.server.profiled import Profiled

DEPLOY = Path(__file__).parent.parent / "deploy"
DASHBOARD = (DEPLOY / "grafana-dashboard.json").read_text(encoding="utf-8")
ALERTS = (DEPLOY / "alerts.yml").read_text(encoding="utf-8")
RUNBOOK = (DEPLOY / "README.md").read_text(encoding="utf-8")

# What Prometheus adds to each series.
TARGET = frozenset({"job", "instance"})
# Metrics that every process has, whoever it is: a rule must say whose.
OF_ANY_PROCESS = re.compile(r"up|process_\w+|python_\w+")

OF_COUNTERS = frozenset({"rate", "increase"})
OF_GAUGES = frozenset({"min_over_time", "max_over_time", "avg_over_time", "changes", "deriv", "predict_linear"})
SET_OPERATORS = frozenset({"and", "or", "unless"})


@dataclass(frozen=True)
class Sampled:
    """What the server shows under one name: counter or gauge, and the values of each label; no values if any will do."""

    is_counter: bool
    labels: Mapping[str, frozenset[str]]


@dataclass(frozen=True)
class Shape:
    """The labels of an expression's series; `fixed` are those that have one value only, since a selector says which."""

    labels: frozenset[str]
    fixed: frozenset[str] = frozenset()


class FaultyExpression(Exception):
    """Raised when an expression does not fit the server's metrics; the message says what of it."""


def sampled(exposition: str) -> dict[str, Sampled]:
    """By name of the sample, so histograms are there as _bucket, _sum and _count."""
    found: dict[str, tuple[bool, dict[str, set[str]]]] = {}
    for family in text_string_to_metric_families(exposition):
        for sample in family.samples:
            _, labels = found.setdefault(sample.name, (family.type in {"counter", "histogram"}, {}))
            for label, value in sample.labels.items():
                labels.setdefault(label, set()).add(value)
    # Of the statuses, only those are shown that were answered.
    for _, labels in found.values():
        if "status" in labels:
            labels["status"] = {*(str(status.value) for status in HTTPStatus), "499", "none"}
    metrics = {
        name: Sampled(is_counter, {label: frozenset(values) for label, values in labels.items()})
        for name, (is_counter, labels) in found.items()
    }
    alert_labels = dict.fromkeys(("alertname", "alertstate", "severity"), frozenset[str]())
    return metrics | {"up": Sampled(False, {}), "ALERTS": Sampled(False, alert_labels)}


class Check:
    """Follows the labels of an expression. `shape` is None for a scalar."""

    def __init__(self, metrics: Mapping[str, Sampled]) -> None:
        self._metrics = metrics

    def shape(self, expression: promql.Expr) -> Shape | None:
        """Raises `FaultyExpression`."""
        match expression:
            case promql.NumberLiteral() | promql.StringLiteral():
                return None
            case promql.ParenExpr() | promql.UnaryExpr():
                return self.shape(expression.expr)
            case promql.VectorSelector():
                return self._selected(expression, over="")
            case promql.Call():
                return self._called(expression)
            case promql.AggregateExpr():
                return self._aggregated(expression)
            case promql.BinaryExpr():
                return self._combined(expression)
        raise FaultyExpression(f"not among what is checked: {expression.prettify()}")

    def _selected(self, selector: promql.VectorSelector, over: str) -> Shape:
        name = selector.name or ""
        metric = self._metrics.get(name)
        if metric is None:
            raise FaultyExpression(f"no such metric: {name}")
        if metric.is_counter and over not in OF_COUNTERS:
            raise FaultyExpression(f"a counter is used by its rate or increase only: {name}")
        if not metric.is_counter and over and over not in OF_GAUGES:
            raise FaultyExpression(f"{over} is not for a gauge: {name}")
        for matcher in selector.matchers.matchers:
            self._match(name, metric, matcher)
        fixed = {matcher.name for matcher in selector.matchers.matchers if matcher.op == promql.MatchOp.Equal}
        return Shape(TARGET | metric.labels.keys(), frozenset(fixed))

    def _match(self, name: str, metric: Sampled, matcher: promql.Matcher) -> None:
        if matcher.name in TARGET:
            return
        if matcher.name not in metric.labels:
            raise FaultyExpression(f"{name} has no label {matcher.name}")
        values = metric.labels[matcher.name]
        is_pattern = matcher.op in (promql.MatchOp.Re, promql.MatchOp.NotRe)
        for wanted in matcher.value.split("|") if is_pattern else [matcher.value]:
            pattern = wanted if is_pattern else re.escape(wanted)
            if values and not any(re.fullmatch(pattern, value) for value in values):
                raise FaultyExpression(f"{name} has no {matcher.name} {wanted}")

    def _called(self, call: promql.Call) -> Shape | None:
        name = call.func.name
        shapes = []
        for argument in call.args:
            if isinstance(argument, promql.MatrixSelector):
                shapes.append(self._selected(argument.vector_selector, over=name))
            elif (shape := self.shape(argument)) is not None:
                shapes.append(shape)
        if name == "absent":
            return Shape(shapes[0].fixed)
        if name == "histogram_quantile":
            if "le" not in shapes[0].labels:
                raise FaultyExpression("histogram_quantile needs le")
            return Shape(shapes[0].labels - {"le"}, shapes[0].fixed)
        return shapes[0] if shapes else None

    def _aggregated(self, aggregation: promql.AggregateExpr) -> Shape:
        inner = self.shape(aggregation.expr)
        assert inner is not None
        kept = frozenset(aggregation.modifier.labels if aggregation.modifier else ())
        if aggregation.modifier and aggregation.modifier.type == promql.AggModifierType.Without:
            kept = inner.labels - kept
        if missing := kept - inner.labels:
            raise FaultyExpression(f"grouped by {', '.join(missing)}, which is not there")
        return Shape(kept, inner.fixed & kept)

    def _combined(self, expression: promql.BinaryExpr) -> Shape | None:
        left, right = self.shape(expression.lhs), self.shape(expression.rhs)
        if left is None or right is None:
            return left or right
        modifier = expression.modifier
        matching = modifier.matching if modifier else None
        named = frozenset(matching.labels if matching else ())
        if matching and matching.type == promql.LabelModifierType.Include:
            if missing := (named - left.labels) | (named - right.labels):
                raise FaultyExpression(f"matched on {', '.join(missing)}, which is not on both sides")
            keys = (named, named)
        else:
            keys = (left.labels - named, right.labels - named)
        if keys[0] != keys[1]:
            raise FaultyExpression(f"sides do not match: {sorted(keys[0])} and {sorted(keys[1])}")
        if str(expression.op) in SET_OPERATORS:
            return left
        cardinality = modifier.card if modifier else promql.VectorMatchCardinality.OneToOne
        left_is_many = cardinality == promql.VectorMatchCardinality.ManyToOne
        right_is_many = cardinality == promql.VectorMatchCardinality.OneToMany
        for side, key, is_many in ((left, keys[0], left_is_many), (right, keys[1], right_is_many)):
            if not is_many and side.labels - key - side.fixed:
                raise FaultyExpression(f"several series match one: {expression.prettify()}")
        if left_is_many:
            return left
        return right if right_is_many else Shape(keys[0], left.fixed & keys[0])


def fill_in(expression: str) -> str:
    """What Grafana's variables stand for."""
    return expression.replace("$__rate_interval", "1m").replace("$__range", "1h")


def shape_of(expression: str, metrics: Mapping[str, Sampled]) -> Shape | None:
    try:
        parsed = promql.parse(fill_in(expression))
    except ValueError as error:
        raise FaultyExpression(f"not PromQL: {error}") from error
    return Check(metrics).shape(parsed)


def panels(dashboard: str) -> list[dict[str, Any]]:
    return [panel for panel in json.loads(dashboard)["panels"] if panel["type"] != "row"]


def rules(alerts: str) -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(alerts)["groups"] for rule in group["rules"]]


def faults_of_dashboard(dashboard: str, metrics: Mapping[str, Sampled]) -> Iterator[str]:
    """Each with the panel's title: expressions, and labels in legends that their series do not have."""
    for panel in panels(dashboard):
        for target in panel["targets"]:
            try:
                shape = shape_of(target["expr"], metrics)
            except FaultyExpression as fault:
                yield f"{panel['title']}: {fault}"
                continue
            named = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
            if unknown := named - (shape.labels if shape else frozenset()):
                yield f"{panel['title']}: the legend names {unknown}"


def faults_of_alerts(alerts: str, metrics: Mapping[str, Sampled]) -> Iterator[str]:
    """Each with the alert's name: expressions, and labels in annotations that their series do not have."""
    for rule in rules(alerts):
        try:
            shape = shape_of(rule["expr"], metrics)
        except FaultyExpression as fault:
            yield f"{rule['alert']}: {fault}"
            continue
        named = set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"])))
        if shape is None or (named - shape.labels):
            yield f"{rule['alert']}: the annotations name {named}"


async def scrape(folder: Path) -> str:
    """What /metrics says after a few requests of each kind."""
    settings = Settings(_env_file=None, workers=1, drain_linger_ms=0, prediction_log=folder / "predictions.jsonl")
    async with running(settings, Profiled) as application:
        for body in ('{"text": "payment failed"}', '{"texts": ["app crashed", "hello"], "priority": "bulk"}', '{"texts": []}'):
            await application.client.post("/classify", content=body)
        await application.client.post("/classify", content=b'{"text": "a"}', headers={"Content-Type": "application/x-ndjson"})
        for path in ("/health", "/ready", "/metrics", "/confidence", "/nowhere"):
            await application.client.get(path)
        labels = (await application.client.get("/metrics")).text
    # What only a model that gives numbers has.
    async with running(settings, lambda: FakeClassifier(problem=OneLabel(("toxic",)))) as application:
        await application.client.post("/classify", json={"text": "payment failed"})
        return labels + (await application.client.get("/metrics")).text


@pytest.fixture(scope="module")
def metrics(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Sampled]:
    return sampled(asyncio.run(scrape(tmp_path_factory.mktemp("deploy"))))


def test_every_expression_of_the_dashboard_fits_the_server_s_metrics(metrics: dict[str, Sampled]) -> None:
    assert len(panels(DASHBOARD)) > 30
    assert list(faults_of_dashboard(DASHBOARD, metrics)) == []


def test_every_expression_of_the_alerts_fits_the_server_s_metrics(metrics: dict[str, Sampled]) -> None:
    assert len(rules(ALERTS)) > 15
    assert list(faults_of_alerts(ALERTS, metrics)) == []


def test_a_misspelt_metric_in_either_is_found(metrics: dict[str, Sampled]) -> None:
    alerts = ALERTS.replace("supportbot_hung_passes > 0", "supportbot_hanging_passes > 0")
    assert list(faults_of_alerts(alerts, metrics)) == [
        "SupportbotNotReady: no such metric: supportbot_hanging_passes",
        "SupportbotStalled: no such metric: supportbot_hanging_passes",
    ]
    dashboard = DASHBOARD.replace("supportbot_truncated_texts_total", "supportbot_truncated_texts")
    assert list(faults_of_dashboard(dashboard, metrics)) == ["Truncated share: no such metric: supportbot_truncated_texts"]


@pytest.mark.parametrize(
    ("expression", "fault"),
    [
        ("rate(supportbot_passes_total[5m]", "not PromQL"),
        ("rate(supportbot_passes[5m])", "no such metric"),
        ("rate(supportbot_pass_seconds[5m])", "no such metric"),
        ("supportbot_passes_total", "by its rate or increase only"),
        ("abs(supportbot_passes_total)", "by its rate or increase only"),
        ("avg_over_time(supportbot_passes_total[5m])", "by its rate or increase only"),
        ("supportbot_pass_seconds_sum / supportbot_pass_seconds_count", "by its rate or increase only"),
        ("rate(supportbot_hung_passes[5m])", "rate is not for a gauge"),
        ('rate(supportbot_passes_total{outcome="failed"}[5m])', "has no label outcome"),
        ('rate(supportbot_passes_total{end="hanged"}[5m])', "has no end hanged"),
        ('rate(supportbot_passes_total{end=~"failed|hanged"}[5m])', "has no end hanged"),
        ('rate(supportbot_passes_total{end!="hanged"}[5m])', "has no end hanged"),
        ('rate(supportbot_http_request_duration_seconds_bucket{le="0.24"}[5m])', "has no le 0.24"),
        ('rate(supportbot_http_request_duration_seconds_count{status=~"6.."}[5m])', "has no status 6.."),
        ('rate(supportbot_http_request_duration_seconds_count{route="/classification"}[5m])', "has no route /classification"),
        ("sum by (reason) (rate(supportbot_passes_total[5m]))", "grouped by reason"),
        ("sum by (end) (sum by (job) (rate(supportbot_passes_total[5m])))", "grouped by end"),
        ("histogram_quantile(0.9, sum by (job) (rate(supportbot_pass_seconds_bucket[5m])))", "needs le"),
        ("histogram_quantile(0.9, sum without (le) (rate(supportbot_pass_seconds_bucket[5m])))", "needs le"),
        ("supportbot_queued_texts / supportbot_queue_max_texts", "sides do not match"),
        ("supportbot_queued_texts / ignoring (priority) supportbot_queue_max_texts", "several series match one"),
        ("supportbot_queue_max_texts / ignoring (priority) group_left () supportbot_queued_texts", "several series match one"),
        ("sum by (job) (supportbot_hung_passes) > sum by (instance) (supportbot_workers)", "sides do not match"),
        ("supportbot_hung_passes and on (job, end) supportbot_workers", "matched on end"),
        ("max_over_time(supportbot_hung_passes[1h:1m])", "not among what is checked"),
    ],
)
def test_an_expression_that_cannot_be_right_is_found(expression: str, fault: str, metrics: dict[str, Sampled]) -> None:
    with pytest.raises(FaultyExpression, match=re.escape(fault)):
        shape_of(expression, metrics)


@pytest.mark.parametrize(
    ("expression", "labels"),
    [
        ("sum(rate(supportbot_passes_total[5m]))", set()),
        ("sum without (end) (rate(supportbot_passes_total[5m]))", {"job", "instance"}),
        ('absent(up{job="supportbot"})', {"job"}),
        ("supportbot_queued_texts / ignoring (priority) group_left () supportbot_queue_max_texts", {"job", "instance", "priority"}),
        ("supportbot_workers * on (job, instance) group_right () supportbot_queued_texts", {"job", "instance", "priority"}),
        ('supportbot_queued_texts{priority="bulk"} / ignoring (priority) supportbot_queue_max_texts', {"job", "instance"}),
        ("histogram_quantile(0.5, sum by (le) (rate(supportbot_confidence_bucket[5m])))", set()),
        ("time() - process_start_time_seconds", {"job", "instance"}),
    ],
)
def test_labels_are_followed_as_prometheus_would(expression: str, labels: set[str], metrics: dict[str, Sampled]) -> None:
    shape = shape_of(expression, metrics)
    assert shape is not None
    assert shape.labels == labels


def test_every_alert_says_how_bad_it_is_what_it_means_and_what_to_do() -> None:
    sections = re.findall(r"^## (Supportbot\w+)$", RUNBOOK, re.MULTILINE)
    assert [rule["alert"] for rule in rules(ALERTS)] == sections
    assert len(set(sections)) == len(sections)
    for rule in rules(ALERTS):
        assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}
        assert promql.parse_duration(rule["for"])
        assert set(rule["annotations"]) == {"summary", "description", "runbook"}
        assert all(rule["annotations"].values())
        assert rule["annotations"]["runbook"] == f"deploy/README.md#{rule['alert'].lower()}"


def test_the_runbook_says_of_each_alert_whether_it_wakes_somebody() -> None:
    said = dict(re.findall(r"^## (Supportbot\w+)\n\n\*(\w+)\.\*", RUNBOOK, re.MULTILINE))
    assert said == {rule["alert"]: rule["labels"]["severity"] for rule in rules(ALERTS)}
    assert set(said.values()) == {"critical", "warning"}


def test_every_link_in_the_runbook_leads_to_an_alert() -> None:
    links = re.findall(r"\[(Supportbot\w+)\]\(#(\w+)\)", RUNBOOK)
    assert links
    assert {name for name, _ in links} <= {rule["alert"] for rule in rules(ALERTS)}
    assert all(anchor == name.lower() for name, anchor in links)


def test_every_setting_that_the_runbook_names_exists() -> None:
    named = set(re.findall(r"`([A-Z][A-Z_]{3,})`", RUNBOOK))
    assert {"BUNDLE", "WORKERS"} <= named
    assert named <= {name.upper() for name in Settings.model_fields}


def test_metrics_that_every_process_has_are_taken_from_our_own_job() -> None:
    (scraped,) = yaml.safe_load((DEPLOY / "prometheus.yml").read_text(encoding="utf-8"))["scrape_configs"]
    seen = []

    def visit(expression: promql.Expr) -> None:
        selector = expression.vector_selector if isinstance(expression, promql.MatrixSelector) else expression
        if isinstance(selector, promql.VectorSelector) and OF_ANY_PROCESS.fullmatch(selector.name or ""):
            seen.append([(matcher.name, matcher.value) for matcher in selector.matchers.matchers])

    for rule in rules(ALERTS):
        promql.walk(promql.parse(rule["expr"]), visit)
    assert seen
    assert all(matchers == [("job", scraped["job_name"])] for matchers in seen)


def test_every_alert_is_seen_firing_in_a_unit_test() -> None:
    tests = yaml.safe_load((DEPLOY / "alerts_test.yml").read_text(encoding="utf-8"))["tests"]
    samples = [sample for test in tests for case in test["promql_expr_test"] for sample in case["exp_samples"]]
    firing = {name for sample in samples for name in re.findall(r'alertname="(\w+)"', sample["labels"])}
    assert firing == {rule["alert"] for rule in rules(ALERTS)}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool (of Prometheus) is not installed")
@pytest.mark.parametrize("arguments", ["check config prometheus.yml", "test rules alerts_test.yml"])
def test_promtool_finds_nothing(arguments: str) -> None:
    done = subprocess.run(["promtool", *arguments.split()], cwd=DEPLOY, capture_output=True, text=True, check=False, timeout=120)  # noqa: S607
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_scrape_configuration_finds_a_server_with_default_settings_and_the_rules() -> None:
    configuration = yaml.safe_load((DEPLOY / "prometheus.yml").read_text(encoding="utf-8"))
    (scraped,) = configuration["scrape_configs"]
    defaults = {name: field.default for name, field in Settings.model_fields.items()}
    assert scraped["static_configs"] == [{"targets": [f"{defaults['host']}:{defaults['port']}"]}]
    assert scraped["metrics_path"] == "/metrics"
    assert configuration["rule_files"] == ["alerts.yml"]


def test_panels_have_ids_of_their_own_and_do_not_overlap() -> None:
    every = json.loads(DASHBOARD)["panels"]
    assert len({panel["id"] for panel in every}) == len(every)
    places = [panel["gridPos"] for panel in every]
    assert all(place["x"] >= 0 and place["x"] + place["w"] <= 24 and place["h"] > 0 and place["w"] > 0 for place in places)
    for one, other in combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or above, (one, other)


def test_whatever_has_a_data_source_has_the_chosen_one() -> None:
    sources = []

    def see(found: dict[str, Any]) -> dict[str, Any]:
        if "datasource" in found:
            sources.append(found["datasource"])
        return found

    json.loads(DASHBOARD, object_hook=see)
    of_grafana, chosen = {"type": "grafana", "uid": "-- Grafana --"}, {"type": "prometheus", "uid": "${datasource}"}
    assert [source for source in sources if source != chosen] == [of_grafana]
    assert len(sources) > 2 * len(panels(DASHBOARD))


def test_every_panel_is_explained_has_a_unit_and_asks_about_the_chosen_instances() -> None:
    for panel in panels(DASHBOARD):
        assert len(panel["description"]) > 20, panel["title"]
        has_axis = panel["type"] == "heatmap"
        assert panel["options"]["yAxis"]["unit"] if has_axis else panel["fieldConfig"]["defaults"]["unit"]
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
        for target in panel["targets"]:
            selectors = len(re.findall(r"\b(?:supportbot|process|python)_\w+", target["expr"]))
            assert target["expr"].count('{job=~"$job",instance=~"$instance"') == selectors, panel["title"]


def test_every_line_that_is_styled_by_its_name_has_that_name() -> None:
    for panel in panels(DASHBOARD):
        legends = {target["legendFormat"] for target in panel["targets"]}
        for override in panel["fieldConfig"]["overrides"]:
            if override["matcher"]["id"] == "byName":
                assert override["matcher"]["options"] in legends, panel["title"]


def test_the_dashboard_s_variables_are_filled_from_what_the_server_has(metrics: dict[str, Sampled]) -> None:
    dashboard = json.loads(DASHBOARD)
    source, *queried = dashboard["templating"]["list"]
    assert (source["name"], source["type"], source["query"]) == ("datasource", "datasource", "prometheus")
    assert {variable["name"] for variable in queried} == TARGET
    for variable in queried:
        selector, label = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"]).groups()  # type: ignore[union-attr]
        assert label == variable["name"]
        assert variable["definition"] == variable["query"]["query"]
        assert shape_of(selector, metrics) == Shape(TARGET)
    for annotation in dashboard["annotations"]["list"][1:]:
        assert shape_of(annotation["expr"], metrics) == Shape(TARGET)
    assert dashboard["id"] is None, "an id belongs to one Grafana only"
    assert "__inputs" not in dashboard, "a provisioned dashboard has nobody to ask"
