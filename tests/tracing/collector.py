"""An OpenTelemetry collector on loopback: takes OTLP over HTTP and keeps the spans."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from tests.loopback import Quiet, listening


@dataclass(frozen=True, slots=True)
class Span:
    """One span as it arrived; ids in hex."""

    service: str
    name: str
    trace: str
    id: str
    parent: str
    began_ns: int
    ended_ns: int
    attributes: dict[str, str]
    failed: bool


class Collector:
    """Spans that arrived so far."""

    def __init__(self) -> None:
        self.url = ""
        self._spans: list[Span] = []
        self._lock = threading.Lock()

    def spans(self, trace: str | None = None) -> list[Span]:
        """Those of one trace, or all."""
        with self._lock:
            return [span for span in self._spans if trace in (None, span.trace)]

    def take(self, data: bytes) -> None:
        """Keep what one request brings."""
        request = ExportTraceServiceRequest.FromString(data)
        for resource in request.resource_spans:
            about = {each.key: each.value.string_value for each in resource.resource.attributes}
            for scope in resource.scope_spans:
                for span in scope.spans:
                    kept = Span(
                        service=about["service.name"],
                        name=span.name,
                        trace=span.trace_id.hex(),
                        id=span.span_id.hex(),
                        parent=span.parent_span_id.hex(),
                        began_ns=span.start_time_unix_nano,
                        ended_ns=span.end_time_unix_nano,
                        attributes={each.key: each.value.string_value for each in span.attributes},
                        failed=span.status.code == 2,
                    )
                    with self._lock:
                        self._spans.append(kept)


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector that listens on loopback."""
    collector = Collector()

    class Handler(Quiet):
        def do_POST(self) -> None:
            body = self.body()
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            if self.path == "/v1/traces":
                collector.take(body)
            answer = ExportTraceServiceResponse().SerializeToString()
            status = 200 if self.path == "/v1/traces" else 404
            self.answer(status, answer, Content_Type="application/x-protobuf")

    with listening(Handler) as url:
        collector.url = url
        yield collector
