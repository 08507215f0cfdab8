"""``GET /metrics`` for Prometheus: what one aggregator counts, gathered when it is asked and not before.

The replica counts in plain integers as it always does; the words, types and labels are put on here, at the
time of the scrape. Labels are of bounded kinds only: members of the committee, phases of the task protocols,
methods, statuses and the house's own event names; never an account, an order or an address.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from fastapi import FastAPI
from fastapi.responses import Response
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from aggregator.api import views
from aggregator.api.feed import Feed
from aggregator.node import Aggregator, now_ms
from protocol.version import software_version

MAX_LABELS: Final = 64
"""Values of one label; what is beyond is counted together as ``other``."""
_OF_A_MEMBER: Final = re.compile(r"(.+)_from_\d+")


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the figures are counted."""

    node: Aggregator
    feed: Feed
    answers: Counter[str]
    """By method and status, ``GET 200``."""
    alarms: Callable[[], list[str]]
    links: Mapping[str, int] = field(default_factory=dict)
    silences_s: Callable[[], Mapping[int, float]] = dict
    """Per member, how long its link has been silent."""


def bounded(counts: Mapping[str, int]) -> dict[str, int]:
    """Counts by at most `MAX_LABELS` names; names that carry a member's number lose it."""
    found: Counter[str] = Counter()
    for name, count in sorted(counts.items()):
        match = _OF_A_MEMBER.fullmatch(name)
        name = match[1] if match else name
        found[name if name in found or len(found) < MAX_LABELS else "other"] += count
    return dict(found)


class AggregatorCollector(Collector):
    """The figures of one aggregator as they are now."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources

    def describe(self) -> Iterable[Metric]:
        """Nothing: the figures are known only once the node runs."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """All figures."""
        yield from self._consensus()
        yield from self._pool()
        yield from self._ledger()
        yield from self._edges()

    def _consensus(self) -> Iterator[Metric]:
        node = self._sources.node
        replica, events = node.replica, node.counters.events
        build = GaugeMetricFamily(
            "dtn_build_info",
            "Always 1: role, software version and newest protocol version that it knows.",
            labels=["role", "version", "protocol"],
        )
        build.add_metric(["aggregator", software_version(), str(node.rules.versions.high)], 1)
        yield build
        yield _gauge("dtn_ready", "1 while clients are well served here; /readyz says why not.", node.ready)
        yield _gauge("dtn_view", "The view this member is in.", replica.view)
        yield _gauge("dtn_active", "1 while this member takes part in its view.", replica.active)
        yield _gauge("dtn_primary", "1 while this member is the primary.", node.index in (replica.primary,))
        yield _gauge("dtn_committee_member", "1 while this aggregator is a member.", node.index is not None)
        yield _gauge("dtn_committee_size", "Members of the committee.", len(node.members.addresses))
        yield _gauge("dtn_committee_epoch", "Epoch of the committee that orders.", node.members.epoch)
        yield _gauge("dtn_sequence_executed", "The last batch applied.", replica.executed)
        yield _gauge("dtn_sequence_stable", "The last checkpoint that a quorum signed.", replica.low)
        yield _counter("dtn_batches", "Batches applied.", events["batches"])
        yield _counter(
            "dtn_batches_unanimous",
            "Of these, those that all members voted for; fewer, if one is away or slow.",
            events["batches_unanimous"],
        )
        yield _counter("dtn_view_changes", "Views entered since the start.", events["views_entered"])
        misbehaviour = {str(member): count for member, count in node.counters.misbehaviour.items()}
        yield _counters(
            "dtn_misbehaviour", "Messages no honest member sends, by sender.", "member", misbehaviour
        )
        others = {
            name: count
            for name, count in events.items()
            if name not in ("batches", "batches_unanimous", "views_entered", "accepted", "refused")
        }
        yield _counters("dtn_member_events", "Other things that this member counts.", "event", others)

    def _pool(self) -> Iterator[Metric]:
        node = self._sources.node
        results = {name: node.counters.events[name] for name in ("accepted", "refused")}
        yield _counters(
            "dtn_transactions", "Transactions ordered, by what became of them.", "result", results
        )
        yield _gauge("dtn_pool_waiting", "Transactions that wait to be ordered.", len(node.mempool))
        oldest_ms = node.mempool.oldest_ms
        waited_s = 0.0 if oldest_ms is None else max(0, now_ms() - oldest_ms) / 1000
        yield _gauge("dtn_inbox_waiting", "Messages and events that wait for the replica.", len(node.inbox))
        yield _gauge(
            "dtn_intake_waiting", "Forwarded transactions that were not looked at yet.", len(node.intake)
        )
        dropped = sum(node.inbox.dropped.values())
        yield _counter("dtn_inbox_dropped", "Messages of members whose queue was full.", dropped)
        yield _gauge("dtn_pool_oldest_seconds", "How long the oldest of them has waited.", waited_s)

    def _ledger(self) -> Iterator[Metric]:
        node = self._sources.node
        state = node.state
        orders = Counter(views.phase_of(entry) for entry in state.table.values())
        found = GaugeMetricFamily("dtn_orders", "Orders in the ledger, by phase.", labels=["phase"])
        for phase, count in bounded(orders).items():
            found.add_metric([phase], count)
        yield found
        yield _gauge("dtn_nodes", "Registered nodes.", len(state.nodes))
        yield _gauge("dtn_settled_epoch", "The last settlement that the chain applied.", state.settled_epoch)
        yield _gauge(
            "dtn_report_pending", "1 while a settlement waits to be applied.", state.report is not None
        )
        yield _gauge("dtn_ledger_time_seconds", "The ledger's time, Unix.", state.now_ms / 1000)
        if state.origin is not None:
            yield _gauge("dtn_origin_block", "The chain block taken in last.", state.origin.number)
        head = node.chain_head
        if head is not None:
            yield _gauge("dtn_chain_confirmed_block", "The last confirmed block of the chain node.", head)
            behind = head - state.origin.number if state.origin is not None else head
            what = "Confirmed blocks that the ledger has not taken in; idle ones wait."
            yield _gauge("dtn_chain_lag_blocks", what, max(0, behind))
        answered_s = node.chain_answered_s
        if answered_s is not None:
            age_s = time.monotonic() - answered_s
            yield _gauge("dtn_chain_answer_age_seconds", "Since the chain node last answered.", age_s)

    def _edges(self) -> Iterator[Metric]:
        sources = self._sources
        yield _gauge("dtn_alarms", "Alarms that are raised; /healthz names them.", len(sources.alarms()))
        yield _gauge("dtn_journal_bytes", "Size of the journal's current log.", sources.node.journal_bytes)
        yield _gauge(
            "dtn_journal_generation",
            "The batch that the current log begins after.",
            sources.node.journal_generation,
        )
        free = sources.node.disk_free_bytes
        if free is not None:
            yield _gauge("dtn_disk_free_bytes", "Room left on the disk of the data folder.", free)
        silences = GaugeMetricFamily(
            "dtn_link_silence_seconds", "Since a member was last heard from.", labels=["member"]
        )
        for member, silence_s in sorted(sources.silences_s().items())[:MAX_LABELS]:
            silences.add_metric([str(member)], silence_s)
        yield silences
        yield _counters("dtn_links", "What happened on links to the members.", "event", sources.links)
        answers = CounterMetricFamily("dtn_api_answers", "Answers of the API.", labels=["method", "status"])
        for name, count in bounded(sources.answers).items():
            method, _, status = name.partition(" ")
            answers.add_metric([method, status], count)
        yield answers
        yield _gauge("dtn_api_readers", "Readers of the event stream.", len(sources.feed))
        cut_off = sources.feed.counters["cut_off"]
        yield _counter("dtn_api_readers_cut_off", "Readers given up because they did not read.", cut_off)


def _gauge(name: str, what: str, value: float) -> Metric:
    return GaugeMetricFamily(name, what, value=float(value))


def _counter(name: str, what: str, value: int) -> Metric:
    return CounterMetricFamily(name, what, value=value)


def _counters(name: str, what: str, label: str, counts: Mapping[str, int]) -> Metric:
    found = CounterMetricFamily(name, what, labels=[label])
    for key, count in bounded(counts).items():
        found.add_metric([key], count)
    return found


def add_metrics(app: FastAPI, sources: Sources) -> None:
    """Serve ``/metrics``."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(AggregatorCollector(sources))
    ProcessCollector(registry=registry)

    @app.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        """Everything this aggregator counts, for Prometheus."""
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)
