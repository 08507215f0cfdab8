"""One order on a network of real processes, traced: one trace holds what each of them did."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("opentelemetry.sdk", reason="pip install 'proof-of-training[trace]'")
pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="pip install 'proof-of-training[trace]'")

from dtn.devnet import Devnet, Shape
from tests.end_to_end.driving import Driver, dtn_json, until
from tests.tracing.collector import collecting

pytestmark = pytest.mark.end_to_end

DONE = {
    "dtn-client": {"prepare", "put", "publish training data", "submit TestRelease", "get", "order open"},
    "dtn-provider": {"fetch data", "train", "submit Claim", "submit ClaimReveal"},
    "dtn-validator": {
        "fetch model",
        "fetch test set",
        "score",
        "submit Validation",
        "submit ValidationReveal",
    },
    "dtn-aggregator": {
        *("admit Claim", "order Claim", "order ClaimReveal", "order Validation", "order ValidationReveal"),
        *("order TestRelease", "phase training", "phase reveal", "phase validation", "settle"),
    },
}


def test_one_trace_holds_what_every_process_did_for_an_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "500")
        with Devnet(tmp_path / "devnet").lifetime(Shape(providers=1, validators=1, verifiers=0)) as devnet:
            driver = Driver(devnet, tmp_path)
            task = str(driver.task())
            config = str(devnet.config("client"))
            with driver.hurrying():
                placed = dtn_json(
                    *("put", task, "--reward", "100", "--config", config, "--wait"), home=tmp_path
                )
            oid = placed["oid"]
            dtn_json("get", oid, "-o", str(tmp_path / "model"), "--config", config, home=tmp_path)

            def all_there() -> bool:
                told: dict[str, set[str]] = {}
                for span in collector.spans(oid[2:34]):
                    told.setdefault(span.service, set()).add(span.name)
                return all(names <= told.get(service, set()) for service, names in DONE.items())

            until("every process has told its part", all_there, devnet)
        spans = collector.spans(oid[2:34])
    assert {span.trace for span in collector.spans()} == {oid[2:34]}, "one order, one trace"
    (root,) = [span for span in spans if not span.parent]
    assert (root.service, root.name, root.id) == ("dtn-client", "order open", oid[34:50])
    ids = {span.id for span in spans}
    assert all(span.parent in ids for span in spans if span is not root), "every span hangs on another"
    (training,) = [span for span in spans if span.name == "train"]
    claims = [span for span in spans if span.name == "submit Claim"]
    assert claims and all(training.began_ns < claim.began_ns for claim in claims)
    members = [span for span in spans if span.name == "settle"]
    assert len(members) == 4, "each member tells its own view"
