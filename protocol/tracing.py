"""OpenTelemetry traces of orders: one trace per order, made by processes that share no call. Off by default.

Whoever works on an order knows its OID, a hash. So its first 16 bytes are the id of the order's trace and the
next 8 the id of the trace's root span, in every process: nothing travels between them for it, and the trace
of order ``0x16e6…`` is found in any tracing tool by the OID's first 32 hex digits.

Switched on by the environment alone, as OpenTelemetry defines it: an ``OTEL_EXPORTER_OTLP_ENDPOINT`` (or
``…_TRACES_ENDPOINT``), or ``OTEL_TRACES_EXPORTER=otlp``. Spans go by OTLP over HTTP, which the extra
``trace`` installs; sampling, headers, timeouts and queues are the SDK's own variables.

Guarantees: while off, nothing of OpenTelemetry is imported here and a span costs one comparison; while on,
spans wait in a bounded queue that a thread of the SDK sends from, so that a collector that is slow or gone
delays nothing but the process's end, by seconds (`FLUSH_S`). What is traced never decides anything: the pure
rooms (replica, ledger, member) know nothing of this module.

Source: OpenTelemetry specification, "SDK environment variables"; W3C Trace Context (ids).
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from protocol.errors import ProtocolError

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Tracer

log = logging.getLogger(__name__)

ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
EXPORTER: Final = "OTEL_TRACES_EXPORTER"
DISABLED: Final = "OTEL_SDK_DISABLED"
SERVICE: Final = "OTEL_SERVICE_NAME"
SPOKEN: Final = "http/protobuf"
FLUSH_S: Final = 5
"""How long the end of a process waits for spans to leave it."""
MS: Final = 1_000_000
"""Nanoseconds in a millisecond: the SDK counts the one, the ledger the other."""

Value = str | int | float | bool


class BadTracing(ProtocolError):
    """Tracing is asked for and cannot be done; says what to change."""


class _Running(NamedTuple):
    provider: TracerProvider
    tracer: Tracer


_NOTHING: Final = contextlib.nullcontext()
_running: _Running | None = None
_root: ContextVar[tuple[int, int] | None] = ContextVar("root", default=None)
"""Ids of the root span that is being made just now."""


def wanted() -> bool:
    """Whether the environment asks for traces."""
    exporter = os.environ.get(EXPORTER, "").strip().lower()
    if os.environ.get(DISABLED, "").strip().lower() == "true" or exporter == "none":
        return False
    return exporter == "otlp" or any(os.environ.get(name) for name in ENDPOINTS)


def enabled() -> bool:
    """Whether spans are recorded in this process."""
    return _running is not None


def start(role: str) -> None:
    """Record spans from now on, as ``dtn-ROLE``, if the environment asks for it and none are recorded yet.

    Raises:
        BadTracing: what is asked for is not installed, or not spoken here.
    """
    global _running
    if _running is not None or not wanted():
        return
    exporter = os.environ.get(EXPORTER, "otlp").strip().lower() or "otlp"
    if exporter != "otlp":
        raise BadTracing(f"traces go by OTLP, not by {exporter!r}: set {EXPORTER} to otlp or none")
    spoken = next((os.environ[name] for name in PROTOCOLS if os.environ.get(name)), SPOKEN)
    if spoken != SPOKEN:
        raise BadTracing(f"traces go by {SPOKEN}, not by {spoken!r}: correct {PROTOCOLS[-1]}")
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as reason:
        raise BadTracing(
            "the environment asks for traces, and OpenTelemetry is not installed: "
            "pip install 'proof-of-training[trace]', or unset OTEL_EXPORTER_OTLP_ENDPOINT"
        ) from reason
    named = {} if os.environ.get(SERVICE) else {"service.name": f"dtn-{role}"}
    named["service.instance.id"] = f"{socket.gethostname()}:{os.getpid()}"
    # Not the process's global provider: libraries that trace their requests would then fill these traces.
    provider = TracerProvider(
        resource=Resource.create({**named, "dtn.role": role}), id_generator=_ids(), shutdown_on_exit=False
    )
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    _running = _Running(provider, provider.get_tracer("dtn"))
    log.info("traces of orders are exported as dtn-%s", role)


def stop() -> None:
    """Send what waits, for `FLUSH_S` at most, and record no more."""
    global _running
    if _running is None:
        return
    running, _running = _running, None
    # Beside: to a collector that is gone the SDK would wait most of a minute, whatever it is told.
    ending = threading.Thread(target=running.provider.shutdown, name="traces", daemon=True)
    ending.start()
    ending.join(FLUSH_S)
    if ending.is_alive():
        log.warning("the collector of traces did not take the last of them in %d s", FLUSH_S)


@contextlib.contextmanager
def exporting(role: str) -> Iterator[None]:
    """`start`, and at the end `stop`."""
    start(role)
    try:
        yield
    finally:
        stop()


def span(name: str, oid: bytes | str, **attributes: Value) -> AbstractContextManager[object]:
    """What happens inside is a span of the order's trace; an error inside makes it a failed one."""
    if _running is None:
        return _NOTHING
    return _running.tracer.start_as_current_span(
        name, context=_context(_bytes(oid)), attributes=_attributes(oid, attributes)
    )


def record(
    name: str,
    oid: bytes | str,
    began_ms: float,
    ended_ms: float | None = None,
    *,
    root: bool = False,
    **attributes: Value,
) -> None:
    """A span of the order's trace that is over; times are Unix milliseconds, ``ended_ms`` now if not given.

    ``root``: the span that all others hang on, the order's whole life; whoever placed it tells of it, once.
    """
    running = _running
    if running is None:
        return
    from opentelemetry.context import Context

    order = _bytes(oid)
    token = _root.set((trace_id(order), span_id(order)) if root else None)
    try:
        made = running.tracer.start_span(
            name,
            context=Context() if root else _context(order),
            attributes=_attributes(oid, attributes),
            start_time=int(began_ms * MS),
        )
    finally:
        _root.reset(token)
    made.end(int((time.time() * 1000 if ended_ms is None else ended_ms) * MS))


def trace_id(oid: bytes) -> int:
    """The trace of an order: the first 16 bytes of its id."""
    return int.from_bytes(oid[:16], "big")


def span_id(oid: bytes) -> int:
    """The root span of an order's trace: the 8 bytes of its id after those of the trace."""
    return int.from_bytes(oid[16:24], "big")


def _bytes(oid: bytes | str) -> bytes:
    return bytes.fromhex(oid.removeprefix("0x")) if isinstance(oid, str) else oid


def _attributes(oid: bytes | str, more: dict[str, Value]) -> dict[str, Any]:
    told = {f"dtn.{name}": value for name, value in more.items()}
    return {"dtn.oid": oid if isinstance(oid, str) else "0x" + oid.hex(), **told}


def _context(oid: bytes) -> Context | None:
    """Where a span of the order hangs: on the one around it if of the same order, else on the root."""
    from opentelemetry import trace

    if trace.get_current_span().get_span_context().trace_id == trace_id(oid):
        return None
    parent = trace.SpanContext(
        trace_id(oid), span_id(oid), is_remote=True, trace_flags=trace.TraceFlags(trace.TraceFlags.SAMPLED)
    )
    return trace.set_span_in_context(trace.NonRecordingSpan(parent))


def _ids() -> Any:
    from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

    class Ids(RandomIdGenerator):
        """Random ids, but for the root span of an order."""

        def generate_trace_id(self) -> int:
            root = _root.get()
            return int(super().generate_trace_id()) if root is None else root[0]

        def generate_span_id(self) -> int:
            root = _root.get()
            return int(super().generate_span_id()) if root is None else root[1]

    return Ids()
