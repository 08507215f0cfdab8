"""Dashboard, alert rules and the table in the documents name figures that a real scrape has, and parse.

``REWRITE=1 python -m pytest tests/deploy`` writes the table anew.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from tests.deploy import scrapes
from tests.deploy.scrapes import Family

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
TABLE = ROOT / "docs" / "metrics.md"
ADDED_BY_PROMETHEUS = {"job", "instance"}
BY_DEVICE = {"device"}
"""Labels of figures that show only while something is trained."""
SEVERITIES = {"critical", "warning", "info"}


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Family]]:
    """By kind of process, every figure."""
    return {
        "aggregator": scrapes.aggregator(tmp_path_factory.mktemp("aggregator")),
        "others": scrapes.provider(tmp_path_factory.mktemp("provider")),
    }


def rules() -> Iterator[dict[str, Any]]:
    for group in yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())["groups"]:
        yield from group["rules"]


def panels() -> Iterator[dict[str, Any]]:
    dashboard = json.loads((DEPLOY / "grafana" / "dtn.json").read_text())
    yield from (panel for panel in dashboard["panels"] if panel["type"] != "row")


def expressions() -> list[str]:
    """Every query of rules and dashboard."""
    shown = [target["expr"] for panel in panels() for target in panel["targets"]]
    return [rule["expr"] for rule in rules()] + shown


def known(scraped: dict[str, dict[str, Family]]) -> dict[str, set[str]]:
    """Labels by the name of a sample."""
    found: dict[str, set[str]] = {"up": set()}
    for families in scraped.values():
        for family in families.values():
            for name in family.samples:
                found.setdefault(name, set()).update(family.labels)
                if name.startswith("dtn_training_"):
                    found[name] |= BY_DEVICE
    return found


def selectors(expression: str) -> list[tuple[str, set[str]]]:
    """Names and matched labels of what a query selects, as the parser prints it."""
    printed = str(promql_parser.parse(expression))
    found = []
    for name, braces in re.findall(r"\b((?:dtn_|process_)\w+|up)\b(?:\{([^}]*)\})?", printed):
        found.append((name, set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", braces))))
    return found


@pytest.mark.parametrize("expression", expressions())
def test_a_query_parses_and_names_figures_and_labels_that_exist(
    expression: str, scraped: dict[str, dict[str, Family]]
) -> None:
    labels_of = known(scraped)
    found = selectors(expression)
    assert found, "it selects nothing"
    for name, labels in found:
        assert name in labels_of, f"nobody shows {name}"
        assert labels <= labels_of[name] | ADDED_BY_PROMETHEUS, f"{name} has no such labels"
    grouped = {
        label.strip()
        for group in re.findall(r"\bby \(([^)]*)\)", str(promql_parser.parse(expression)))
        for label in group.split(",")
    }
    everything = set().union(*(labels_of[name] for name, _ in found)) | ADDED_BY_PROMETHEUS
    assert grouped <= everything, f"nothing has {grouped - everything}"


def test_a_wrong_query_would_be_noticed(scraped: dict[str, dict[str, Family]]) -> None:
    with pytest.raises(ValueError):
        promql_parser.parse("sum by (x (dtn_view)")
    assert [name for name, _ in selectors('rate(dtn_no_such{a="b"}[5m]) > 1')] == ["dtn_no_such"]
    assert "dtn_no_such" not in known(scraped)


def test_every_alert_says_what_is_wrong_and_what_to_do(scraped: dict[str, dict[str, Family]]) -> None:
    names = [rule["alert"] for rule in rules()]
    assert len(set(names)) == len(names) > 20
    for rule in rules():
        assert rule["labels"]["severity"] in SEVERITIES and re.fullmatch(r"\d+[mhd]", rule["for"])
        assert set(rule["annotations"]) == {"summary", "action"}
        # What a summary quotes must be there when the alert fires.
        quoted = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
        by = re.search(r"^\s*sum by \(([^)]*)\)", rule["expr"])
        labels_of = known(scraped)
        kept = (
            {label.strip() for label in by[1].split(",")}
            if by
            else set().union(*(labels_of[name] for name, _ in selectors(rule["expr"]))) | ADDED_BY_PROMETHEUS
        )
        assert quoted <= kept, f"{rule['alert']} quotes {quoted - kept}"


def test_panels_have_titles_places_and_one_source() -> None:
    ids = [panel["id"] for panel in panels()]
    assert len(set(ids)) == len(ids) > 20
    for panel in panels():
        assert panel["title"] and panel["datasource"]["uid"] == "${source}"
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24


def test_prometheus_reads_the_rules_and_scrapes_the_services_of_the_compose_file() -> None:
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    assert config["rule_files"] == ["alerts.yml"]
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    targets = {
        scrape["job_name"]: scrape["static_configs"][0]["targets"] for scrape in config["scrape_configs"]
    }
    for job, (target,) in targets.items():
        host, _, port = target.partition(":")
        assert job == f"dtn-{host}" and host in services
        assert f"127.0.0.1:{port}/healthz" in str(services[host]["healthcheck"]["test"])


def table(scraped: dict[str, dict[str, Family]]) -> list[str]:
    """The rows that the documents must have."""
    merged: dict[str, tuple[Family, list[str]]] = {}
    for who, families in scraped.items():
        for name, family in families.items():
            if not name.startswith("dtn_"):
                continue
            merged.setdefault(name, (family, []))[1].append(who)
    rows = []
    for name, (family, shown_by) in sorted(merged.items()):
        labels = set(family.labels) - {"le"}
        if name.startswith("dtn_training_") and family.kind == "gauge" and name != "dtn_training_jobs":
            labels |= BY_DEVICE
        shown = name + ("_total" if family.kind == "counter" else "")
        by = f"{{{','.join(sorted(labels))}}}" if labels else ""
        who = "all" if len(shown_by) == 2 else "aggregator" if shown_by == ["aggregator"] else "others"
        if name.startswith("dtn_training_"):
            who = "provider"
        rows.append(f"| `{shown}{by}` | {family.kind} | {who} | {family.help} |")
    return rows


def test_the_documents_list_exactly_the_figures(scraped: dict[str, dict[str, Family]]) -> None:
    text = TABLE.read_text(encoding="utf-8")
    start = text.index("| figure |")
    head = "| figure | kind | shown by | what |\n|---|---|---|---|\n"
    wanted = text[:start] + head + "\n".join(table(scraped)) + "\n"
    if os.environ.get("REWRITE"):
        TABLE.write_text(wanted, encoding="utf-8")
    assert TABLE.read_text(encoding="utf-8") == wanted, "run REWRITE=1 python -m pytest tests/deploy"


def test_the_figures_that_operating_names_exist(scraped: dict[str, dict[str, Family]]) -> None:
    text = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")
    names = set(re.findall(r"\bdtn_[a-z_]+", text))
    assert names and names <= set(known(scraped)), names - set(known(scraped))
