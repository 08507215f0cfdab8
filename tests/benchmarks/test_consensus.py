"""The consensus benchmark at tiny sizes: the shape of what it prints, that all members reply. No times."""

from __future__ import annotations

import json

import pytest

from benchmarks import consensus
from benchmarks._wire import Conditions, Wire, floor_s


def figures(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, object]:
    """What the benchmark's last line says."""
    consensus.main([*arguments, "--json"])
    result: dict[str, object] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return result


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["--payload", "3000"], id="blob on sockets"),
        pytest.param(["--transactions", "3", "--durable"], id="transactions, journals on disk"),
        pytest.param(["--payload", "3000", "--virtual"], id="blob in virtual time"),
        pytest.param(["--transactions", "3", "--virtual"], id="transactions in virtual time"),
        pytest.param(
            ["--payload", "300", "--latency-ms", "20", "--bandwidth-mbps", "30", "--until", "quorum"],
            id="emulated network",
        ),
    ],
)
def test_every_member_replies_and_figures_stand_beside_their_floors(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    result = figures(capsys, "--nodes", "4", "--repeat", "2", *arguments)
    assert set(result) == {"config", "results"}
    (row,) = result["results"]  # type: ignore[misc]
    assert row["nodes"] == 4 and row["all_nodes_replied"] is True
    seconds = row["seconds"]
    assert 0 < seconds["min"] <= seconds["median"] <= seconds["max"]
    assert set(row["floor_seconds"]) == {"network", "signatures"}
    assert row["payload_bytes"] > 0


def test_a_member_that_left_the_view_is_served_what_it_missed(capsys: pytest.CaptureFixture[str]) -> None:
    """On so slow a network one of the members gives its primary up while the others commit."""
    result = figures(
        capsys,
        *("--nodes", "7", "--payload", "3000", "--repeat", "2", "--virtual"),
        *("--latency-ms", "300", "--bandwidth-mbps", "0.1", "--view-timeout-ms", "750"),
    )
    (row,) = result["results"]  # type: ignore[misc]
    assert row["all_nodes_replied"] is True


def test_a_connection_carries_one_message_after_the_other() -> None:
    wire = Wire(Conditions(bandwidth_mbps=8), seed=1)
    assert wire.arrival_s(1, 1_000_000, 0.0) == 1.0
    assert wire.arrival_s(1, 1_000_000, 0.0) == 2.0, "the link was busy until then"
    assert wire.arrival_s(2, 1_000_000, 0.0) == 1.0, "another connection was not"


def test_latencies_alone_cost_what_the_rounds_of_a_request_need() -> None:
    """Five messages in a row, each of at least a tenth of L and at most L."""
    conditions = Conditions(latency_ms=300)
    assert 5 * 0.03 < floor_s(10, 7, 7, 3000, conditions) < 5 * 0.3
    assert floor_s(10, 7, 10, 3000, conditions) > floor_s(10, 7, 7, 3000, conditions)
    assert floor_s(10, 7, 7, 3000, Conditions()) == 0.0
