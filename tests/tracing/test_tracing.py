"""Traces: nothing while off, one trace per order whoever works on it, and a dead collector harms nobody."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("opentelemetry.sdk", reason="pip install 'proof-of-training[trace]'")
pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="pip install 'proof-of-training[trace]'")

from aggregator.ledger.transition import Applied
from aggregator.pbft.messages import Committed
from aggregator.tracing import OrderTraces
from protocol import tracing
from protocol.crypto import keccak256
from tests.api.network import running
from tests.ledger.world import DOMAIN
from tests.page.stage import people, whole_order
from tests.tracing.collector import Collector, collecting

OID = keccak256(b"an order")
TRACE, ROOT = OID.hex()[:32], OID.hex()[32:48]
VARIABLES = (*tracing.ENDPOINTS, *tracing.PROTOCOLS, tracing.EXPORTER, tracing.DISABLED, tracing.SERVICE)


@pytest.fixture(autouse=True)
def nothing_asked_for(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    yield
    tracing.stop()


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as running_:
        yield running_


def python(code: str, **environment: str) -> str:
    """What another process prints."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout


# Off -------------------------------------------------------------------------------------------------------


def test_while_off_the_sdk_is_not_imported_and_nothing_is_recorded() -> None:
    code = (
        "import sys, dtn.app, aggregator.service, offchain.client, offchain.provider\n"
        "from protocol import tracing\n"
        "tracing.start('provider')\n"
        "with tracing.span('train', bytes(32)): tracing.record('x', bytes(32), 0)\n"
        "print(tracing.enabled(), [m for m in sys.modules if m.startswith(('opentelemetry.sdk', "
        "'opentelemetry.exporter'))])"
    )
    assert python(code).strip() == "False []"


def test_a_span_that_is_off_is_the_same_nothing_every_time() -> None:
    assert tracing.span("train", OID, steps=5) is tracing.span("score", OID)
    tracing.record("settled", OID, 0)


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:1/v1/traces"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}, False),
        ({"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
    ],
)
def test_the_environment_alone_switches_them_on(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], wanted: bool
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert tracing.wanted() is wanted


def test_what_cannot_be_done_is_said_with_what_to_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    with pytest.raises(tracing.BadTracing, match="not by 'grpc'"):
        tracing.start("client")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "zipkin")
    with pytest.raises(tracing.BadTracing, match="not by 'zipkin'"):
        tracing.start("client")
    monkeypatch.delenv("OTEL_TRACES_EXPORTER")
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(tracing.BadTracing, match=r"pip install 'proof-of-training\[trace\]'"):
        tracing.start("client")
    assert not tracing.enabled()


# On --------------------------------------------------------------------------------------------------------


def test_processes_that_share_no_call_make_one_trace(collector: Collector) -> None:
    work = (
        "from protocol import tracing\n"
        "oid = '0x{oid}'\n"
        "with tracing.exporting('{role}'):\n"
        "    with tracing.span('{role} works', oid, device='cpu'):\n"
        "        with tracing.span('{role} inner', bytes.fromhex(oid[2:])): pass\n"
        "        with tracing.span('{role} elsewhere', bytes(31) + b'\\x01' * 1): pass\n"
        "    {more}\n"
    )
    more = {
        "provider": "pass",
        "client": "tracing.record('order open', oid, 1_000, 61_000, root=True, result='won')",
    }
    for role, last in more.items():
        python(work.format(oid=OID.hex(), role=role, more=last), OTEL_EXPORTER_OTLP_ENDPOINT=collector.url)
    spans = {span.name: span for span in collector.spans(TRACE)}
    assert set(spans) == {
        *("provider works", "provider inner", "client works", "client inner"),
        "order open",
    }
    assert {span.service for span in spans.values()} == {"dtn-provider", "dtn-client"}
    root = spans["order open"]
    assert (root.id, root.parent) == (ROOT, "")
    assert (root.began_ns, root.ended_ns) == (1_000 * 10**6, 61_000 * 10**6)
    assert root.attributes["dtn.result"] == "won" and root.attributes["dtn.oid"] == "0x" + OID.hex()
    for role in more:
        outer, inner = spans[f"{role} works"], spans[f"{role} inner"]
        assert outer.parent == ROOT and inner.parent == outer.id
        assert outer.began_ns <= inner.began_ns <= inner.ended_ns <= outer.ended_ns
    assert spans["provider works"].id != spans["client works"].id


def test_work_that_fails_is_a_failed_span(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    with tracing.exporting("validator"), pytest.raises(ValueError), tracing.span("score", OID):
        raise ValueError("no model")
    (span,) = collector.spans(TRACE)
    assert span.failed and span.service == "dtn-validator"


def test_names_and_samplers_of_the_environment_are_followed(collector: Collector) -> None:
    code = (
        "from protocol import tracing\n"
        "with tracing.exporting('provider'):\n"
        f"    with tracing.span('train', '0x{OID.hex()}'): pass\n"
    )
    python(code, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, OTEL_SERVICE_NAME="our-gpus")
    python(code, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, OTEL_TRACES_SAMPLER="always_off")
    assert [span.service for span in collector.spans(TRACE)] == ["our-gpus"]


@pytest.mark.parametrize("hangs", [False, True], ids=["dead", "hanging"])
def test_a_collector_that_is_gone_delays_nothing_but_the_end_and_that_by_seconds(hangs: bool) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    if not hangs:
        listener.close()
    code = (
        "import time; from protocol import tracing\n"
        "with tracing.exporting('provider'):\n"
        "    began = time.monotonic()\n"
        "    for _ in range(5_000):\n"
        f"        with tracing.span('train', '0x{OID.hex()}'): pass\n"
        "    working = time.monotonic()\n"
        "print(working - began, time.monotonic() - working)\n"
    )
    try:
        working, ending = map(
            float, python(code, OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{port}").split()
        )
    finally:
        listener.close()
    assert working < 5 and ending < tracing.FLUSH_S + 3  # 1 s and 5 s at rest


def test_an_aggregator_tells_a_whole_order(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)

    async def order() -> str:
        async with running(tmp_path, DOMAIN) as net:
            net.node.on_applied = OrderTraces(DOMAIN).applied
            await people(net, "http://127.0.0.1:1")
            return await whole_order(net)

    with tracing.exporting("aggregator"):
        oid = asyncio.run(order())
    spans = collector.spans(oid[2:34])
    names = [span.name for span in spans]
    assert {span.service for span in spans} == {"dtn-aggregator"} and {s.parent for s in spans} == {
        oid[34:50]
    }
    assert names.count("admit Claim") == names.count("order Claim") == 4
    assert names.count("order ValidationReveal") == 12 and names.count("settle") == 1
    phases = [span for span in spans if span.name.startswith("phase ")]
    assert [span.name.removeprefix("phase ") for span in sorted(phases, key=lambda s: s.began_ns)] == [
        *(
            "training",
            "reveal",
            "validation",
            "validation_reveal",
            "challenge",
            "verdict",
            "verdict_reveal",
            "appeal",
        ),
    ]
    for before, after in itertools.pairwise(phases):
        assert before.ended_ns == after.began_ns
    claim = next(span for span in spans if span.name == "order Claim")
    assert claim.attributes["dtn.code"] == "Accepted" and claim.attributes["dtn.tx"].startswith("0x")


def test_an_order_of_a_kind_that_nobody_knows_ends_no_aggregator(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)

    async def order() -> bytes:
        async with running(tmp_path, DOMAIN) as net:
            net.node.on_applied = OrderTraces(DOMAIN).applied
            oid = await net.place(kind="unheard-of")
            await net.place()  # the next batch is applied by whoever lives
            await net.until(lambda: net.node.replica.executed >= 2)
            return oid

    with tracing.exporting("aggregator"):
        oid = asyncio.run(order())
    assert [span.name for span in collector.spans(oid.hex()[:32]) if span.name.startswith("phase")] == []


def test_whoever_looks_on_at_batches_cannot_end_the_aggregator(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def stumble(committed: Committed, applied: Applied) -> None:
        raise ValueError("an onlooker's own fault")

    async def order() -> None:
        async with running(tmp_path, DOMAIN) as net:
            net.node.on_applied = stumble
            await net.place()

    asyncio.run(order())
    assert "what looks on at batch" in caplog.text and "an onlooker's own fault" in caplog.text
