"""conf/prometheus: the alert rules and the dashboard use only metrics that exist."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from helpers import marked

FOLDER = Path(__file__).resolve().parents[2]
RULES = FOLDER / "conf/prometheus/taskproxy.rules.yml"
DASHBOARD = FOLDER / "conf/prometheus/taskproxy.dashboard.json"
CASES = FOLDER / "tests/prometheus/rules_test.yml"


def promtool(*arguments):
    done = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def dashboard():
    return json.loads(DASHBOARD.read_text())


def expressions(dashboard):
    return [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]


def metrics_in(text):
    return set(re.findall(r"\btaskproxy_\w+", text))


def known_metrics(stack):
    known = set()
    for name, kind in re.findall(r"^# TYPE (\S+) (\S+)", stack.get("/metrics").body.decode(), re.MULTILINE):
        known |= {f"{name}_{part}" for part in ("bucket", "sum", "count")} if kind == "histogram" else {name}
    return known


def test_alerts_fire_only_when_they_should():
    promtool("check", "rules", RULES)
    promtool("test", "rules", CASES)


def test_every_alert_has_its_cases_and_is_caused_by_a_test():
    alerts = set(re.findall(r"- alert: (\w+)", RULES.read_text()))
    assert alerts and alerts == set(re.findall(r'alertname="(\w+)"', CASES.read_text())) == marked("alert").keys()


def test_rules_and_dashboard_use_existing_metrics(stack, dashboard):
    known = known_metrics(stack)
    for text in (RULES.read_text(), CASES.read_text(), "\n".join(expressions(dashboard))):
        assert metrics_in(text) - known == set()


def test_dashboard_expressions_are_valid(dashboard, tmp_path):
    rules = [
        {"record": f"panel:{number}", "expr": expression.replace("$__rate_interval", "5m").replace("$instance", ".*")}
        for number, expression in enumerate(expressions(dashboard))
    ]
    file = tmp_path / "rules.yml"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))  # JSON is valid YAML
    promtool("check", "rules", file)


def test_dashboard_panels_are_distinct_and_do_not_overlap(dashboard):
    ids, titles = ([panel[name] for panel in dashboard["panels"]] for name in ("id", "title"))
    assert len(set(ids)) == len(set(titles)) == len(ids) > 20
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in dashboard["panels"])
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(cells)) == len(cells) and max(x for x, _ in cells) < 24
