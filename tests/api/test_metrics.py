"""``/metrics``: true, readable by Prometheus' own parser, and bounded whatever happens."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from aggregator.api.metrics import MAX_LABELS, bounded
from protocol.transactions import Cancel, Claim
from tests.api.network import Network
from tests.api.test_api import hexed, run
from tests.ledger.world import who


async def figures(net: Network) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """All samples by name and labels."""
    answer = await net.http.get("/metrics")
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/plain")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_figures_say_what_the_member_does(tmp_path: Path) -> None:
    async def scenario(net: Network) -> None:
        oid = await net.place()
        await net.send("provider0", Claim, oid=oid, commitment=bytes(32))
        await net.send("outsider7", Claim, 409, oid=oid, commitment=bytes(32))
        await net.send("client", Cancel, oid=await net.place())
        seen = await figures(net)
        node = net.node
        for name, value in (
            ("dtn_sequence_executed", node.replica.executed),
            ("dtn_sequence_stable", node.replica.low),
            ("dtn_batches_total", node.counters.events["batches"]),
            ("dtn_batches_unanimous_total", node.counters.events["batches_unanimous"]),
            *(("dtn_ready", 1), ("dtn_chain_lag_blocks", 0), ("dtn_inbox_dropped_total", 0)),
            ("dtn_journal_generation", node.journal_generation),
            *(("dtn_view", 0), ("dtn_active", 1), ("dtn_primary", 1), ("dtn_committee_size", 1)),
            *(("dtn_pool_waiting", 0), ("dtn_alarms", 0), ("dtn_nodes", 3)),
            ("dtn_chain_confirmed_block", net.chain.head()),
            ("dtn_origin_block", net.chain.head()),
        ):
            assert seen[name, ()] == value, name
        assert seen["dtn_transactions_total", (("result", "accepted"),)] == 2
        assert seen["dtn_orders", (("phase", "training"),)] == 1
        assert seen["dtn_api_answers_total", (("method", "POST"), ("status", "200"))] == 2
        assert seen["dtn_journal_bytes", ()] > 0 and seen["dtn_disk_free_bytes", ()] > 0
        assert seen["dtn_chain_answer_age_seconds", ()] >= 0
        assert sum(value for (name, _), value in seen.items() if name == "dtn_build_info") == 1

    run(tmp_path, scenario)


def test_no_figure_names_who_or_what(tmp_path: Path) -> None:
    async def scenario(net: Network) -> None:
        oid = await net.place(kind="<hostile>")
        text = (await net.http.get("/metrics")).text
        assert "hostile" not in text and oid.hex() not in text
        assert hexed(who("provider0")) not in text

    run(tmp_path, scenario)


def test_strange_methods_and_paths_make_no_new_figures(tmp_path: Path) -> None:
    async def scenario(net: Network) -> None:
        await net.http.get("/v1/nonsense")
        await net.http.delete("/v1/orders")
        before = set(await figures(net))
        for number in range(50):
            await net.http.get(f"/v1/nonsense-{number}")
            await net.http.request(f"METHOD{number}", "/v1/orders")
        assert set(await figures(net)) <= before | {
            ("dtn_api_answers_total", (("method", "GET"), ("status", "200")))
        }

    run(tmp_path, scenario)


@pytest.mark.parametrize("most", [MAX_LABELS, 10 * MAX_LABELS])
def test_labels_are_bounded(most: int) -> None:
    counts = Counter({f"event {number:05d}": 1 for number in range(most)})
    found = bounded(counts)
    assert len(found) <= MAX_LABELS + 1 and sum(found.values()) == most
    assert bounded({"malformed_from_3": 2, "malformed_from_5": 1}) == {"malformed": 3}
