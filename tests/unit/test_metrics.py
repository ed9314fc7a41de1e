"""The metrics: what they are called, what their labels may be, and that no number is lost with a process."""

import ast
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.mmap_dict import MmapedDict, mmap_key

from compliance.jobs.job import State
from worker.telemetry import metrics
from worker.telemetry.attempt import STATUS, Ending
from worker.telemetry.exposition import KEPT, PoolCollector, keep_of_dead
from worker.telemetry.metrics import ATTEMPTS, METRICS

ROOT = Path(__file__).parents[2]
LABELS = {"anchor", "kind", "state", "outcome", "stream"}
UNITS = ("_seconds", "_total", "_jobs", "_past_deadline", "_overdue", "_readable")
RULES = ROOT / "docs/examples/alerts.yml"


@pytest.fixture(autouse=True)
def _off() -> Iterator[None]:
    yield
    metrics.switch_off()


def test_names_follow_the_conventions() -> None:
    for metric in METRICS:
        assert re.fullmatch(r"compliance_[a-z_]+", metric.name), metric.name
        assert metric.name.endswith(UNITS), metric.name
        assert (metric.type == "counter") == metric.name.endswith("_total"), metric.name
        assert metric.meaning.endswith("."), metric.name
    assert len({metric.name for metric in METRICS}) == len(METRICS)


def test_no_label_can_hold_an_id() -> None:
    assert {label for metric in METRICS for label in metric.labels} <= LABELS


def test_every_metric_of_the_module_is_in_the_table() -> None:
    tree = ast.parse((ROOT / "worker/telemetry/metrics.py").read_text(encoding="utf-8"))
    made = [
        node.args[0].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and getattr(node.func, "id", "") in {"Count", "Distribution", "Reading"}
        and isinstance(node.args[0], ast.Constant)
    ]

    assert sorted(made) == sorted(metric.name for metric in METRICS)


def test_the_page_lists_exactly_the_metrics() -> None:
    text = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(compliance_\w+)` \| (\w+) \| ([^|]*)\|", text, re.MULTILINE)
    listed = {name: (kind, tuple(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}

    assert listed == {metric.name: (metric.type, metric.labels) for metric in METRICS}


def test_the_alerts_ask_for_metrics_that_exist_by_labels_that_they_have() -> None:
    known = {
        name: metric
        for metric in METRICS
        for name in (metric.name, *(f"{metric.name}_{end}" for end in ("bucket", "sum", "count")))
        if name == metric.name or metric.type == "histogram"
    }
    rules = [rule for group in yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"] for rule in group["rules"]]
    for rule in rules:
        used = re.findall(r"(compliance_\w+)(?:\{([^}]*)\})?", rule["expr"])
        assert used, rule["alert"]
        for name, selectors in used:
            assert name in known, name
            assert set(re.findall(r"(\w+)\s*[=!]", selectors)) <= set(known[name].labels), rule["alert"]
        assert {"summary", "description"} <= set(rule["annotations"]), rule["alert"]
    assert len(rules) > 5


def test_the_outcomes_that_a_state_has_are_called_like_it() -> None:
    ends = {state.value for state in State} - {State.QUEUED.value, State.RUNNING.value}

    assert ends <= {ending.value for ending in Ending}
    assert {ending.value for ending in STATUS} == ends


def test_while_they_are_off_nothing_is_counted() -> None:
    ATTEMPTS.inc("audit.verify", "done")
    registry = CollectorRegistry()
    metrics.switch_on(metrics.WORKER_METRICS, registry)

    assert b'outcome="done"' not in generate_latest(registry)


def test_the_files_of_dead_processes_become_one(tmp_path: Path) -> None:
    key = mmap_key("compliance_sweeps", "compliance_sweeps_total", [], [], "Looks.")
    gone = [2**22 + number for number in range(1, 6)]  # above the highest id of a process
    for pid in gone:
        file = MmapedDict(str(tmp_path / f"counter_{pid}.db"))
        file.write_value(key, 2.0, 0.0)
        file.close()
    (tmp_path / f"counter_{os.getpid()}.db").touch()

    keep_of_dead(tmp_path)
    (family,) = PoolCollector(tmp_path).collect()

    assert [sample.value for sample in family.samples] == [10.0]
    assert {path.name for path in tmp_path.iterdir()} == {f"counter_{KEPT}.db", f"counter_{os.getpid()}.db"}
