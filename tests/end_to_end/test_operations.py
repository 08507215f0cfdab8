"""A small network as its operators see it: doctors, scrapes, logs that join, a rolling restart, a backup."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from dtn.devnet import Devnet, Shape
from tests.end_to_end.driving import Driver, dtn, dtn_json, until

pytestmark = pytest.mark.end_to_end

AGGREGATORS = [f"aggregator-{index}" for index in range(1, 5)]


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    home = tmp_path_factory.mktemp("home")
    shape = Shape(
        providers=1,
        validators=1,
        verifiers=1,
        extra={
            **{name: {"metrics_port": 0} for name in ("validator-1", "verifier-1", "client")},
            # It trains to the deadline, so that it can be watched.
            "provider-1": {"metrics_port": 0, "patience_steps": 10**9, "stop_early": False},
        },
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DTN_LOG_FORMAT", "json")
        with Devnet(home / "devnet").lifetime(shape) as devnet:
            yield Driver(devnet, home)


@pytest.fixture(scope="module")
def oid(driver: Driver) -> str:
    """An order that was settled."""
    placed = driver.put()
    driver.claimed(placed, 1)
    trained = scrape(driver, "provider-1")
    assert trained["dtn_training_jobs", ()] == 1
    assert driver.settled(placed)["result"] == "won"
    return placed


def lines(driver: Driver, name: str) -> list[dict[str, Any]]:
    """What a process has logged, all of it JSON."""
    return [json.loads(line) for line in driver.devnet.children.log(name).read_text().splitlines()]


def scrape(driver: Driver, name: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """All figures of a process, whose log says where they are."""
    said = [line["message"] for line in lines(driver, name)]
    (url,) = {text.removeprefix("metrics at ") for text in said if text.startswith("metrics at ")}
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(httpx.get(url).text)
        for sample in family.samples
    }


def test_one_order_joins_the_lines_of_all_who_took_part(driver: Driver, oid: str) -> None:
    about = {
        name: [line for line in lines(driver, name) if line.get("oid") == oid]
        for name in ("provider-1", "validator-1", "client", *AGGREGATORS)
    }
    assert all(about.values()), {name: len(found) for name, found in about.items()}
    claims = [line for line in about["provider-1"] if line.get("transaction") == "ClaimReveal"]
    assert claims and claims[0]["tx"].startswith("0x")
    # A batch is one number everywhere, so what the others say of it joins too.
    sealed = {
        name: {line["sequence"] for line in about[name] if " seals " in line["message"]}
        for name in AGGREGATORS
    }
    assert len({tuple(found) for found in sealed.values()}) == 1 and all(sealed.values())
    assert {line["sequence"] for line in claims} < set(range(1, max(sealed["aggregator-1"]) + 1))


def test_what_everybody_did_is_in_their_figures(driver: Driver, oid: str) -> None:
    provider = until(
        "the provider's earnings show",
        lambda: (found := scrape(driver, "provider-1")).get(("dtn_earned_tokens", ()), 0) > 0 and found,
        driver.devnet,
    )
    assert provider["dtn_training_events_total", (("event", "claimed"),)] >= 1
    revealed = (("result", "accepted"), ("transaction", "ClaimReveal"))
    assert provider["dtn_submissions_total", revealed] == 1
    assert provider["dtn_storage_bytes", (("kind", "public"),)] > 0
    validator = scrape(driver, "validator-1")
    assert validator["dtn_evaluations_total", (("result", "scored"),)] >= 1
    assert validator["dtn_evaluation_seconds_count", ()] >= 1
    assert validator["dtn_ready", ()] == 1


@pytest.mark.parametrize("name", ["aggregator-1", "provider-1", "validator-1", "verifier-1", "client"])
def test_the_doctor_finds_nothing_wrong_with_a_healthy_node(driver: Driver, oid: str, name: str) -> None:
    done = dtn("doctor", "--config", str(driver.devnet.config(name)), "--json", home=driver.folder)
    told = json.loads(done.stdout)
    broken = [each for each in told["findings"] if each["verdict"] == "failed" and each["check"] != "disk"]
    assert not broken and told["role"] == name.partition("-")[0]


def test_a_rolling_restart_stops_nobody_and_a_moved_member_goes_on(driver: Driver, oid: str) -> None:
    """What an upgrade does: one member after the other ends and starts; one moves to another disk."""
    config = str(driver.devnet.config("aggregator-2"))
    placed = driver.put()
    for name in AGGREGATORS:
        driver.devnet.children.stop([name])
        if name == "aggregator-2":
            copy, data = driver.folder / "move.tar", driver.devnet.folder / "data" / name
            dtn_json("aggregator", "backup", str(copy), "--config", config, "--move", home=driver.folder)
            (data / "journal").rename(data / "journal-moved")
            dtn_json("aggregator", "restore", str(copy), "--config", config, home=driver.folder)
        start(driver, name)
        until(f"{name} is back", lambda name=name: in_step(driver, name), driver.devnet)
    assert driver.settled(placed)["result"] == "won"


def start(driver: Driver, name: str) -> None:
    """Start an aggregator that was stopped, and so forgotten."""
    driver.devnet.start(name, Shape())


def in_step(driver: Driver, name: str) -> bool:
    """Whether a member takes part and is where the others are."""
    known = [driver.status(each) for each in AGGREGATORS]
    mine = driver.status(name)
    return (
        mine is not None
        and mine["active"]
        and not mine["alarms"]
        and all(status is None or mine["executed"] >= status["executed"] - 4 for status in known)
    )
