"""The HTTP API of one aggregator, put together: thin handlers over the read model, one error shape.

Errors are ``{"error": {"code", "reason"}}``: 400 for what cannot be read, 404 for what is not there, 409 for
what the ledger refuses, 429 and 503 for what may be tried again. What keeps readers from slowing the replica
is `aggregator.api.gate`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse, Response, StreamingResponse

from aggregator.api import schema, views
from aggregator.api.errors import ApiError, one_error_shape
from aggregator.api.feed import Feed, TooManyReaders, event_id
from aggregator.api.gate import Gate
from aggregator.api.metrics import Sources, add_metrics
from aggregator.api.page import add_page
from aggregator.api.reading import fresh
from aggregator.api.reads import add_reads
from aggregator.api.stream import EventStream
from aggregator.api.writes import add_writes
from aggregator.ledger.state import Node
from aggregator.node import Aggregator, now_ms
from protocol.endpoint import api_address
from protocol.version import software_version

REQUESTS_PER_S: Final = 50
"""What one address may ask, unless the operator says otherwise."""

Alarms = Callable[[], list[str]]
"""What an operator should look at; empty in good times."""

_ERRORS: Final[dict[int | str, dict[str, Any]]] = {
    status: {"model": schema.ErrorAnswer, "description": description}
    for status, description in (
        (400, "cannot be read"),
        (404, "not there"),
        (405, "no such method here"),
        (409, "refused by the ledger, or not yet"),
        (413, "too large"),
        (429, "too many requests, or the pool is full: try again later"),
        (503, "try another member"),
    )
}


def build_app(
    node: Aggregator,
    alarms: Alarms,
    *,
    requests_per_s: int = REQUESTS_PER_S,
    links: Mapping[str, int] | None = None,
    silences_s: Callable[[], Mapping[int, float]] = dict,
    order_book: str | None = None,
) -> FastAPI:
    """The API of one aggregator.

    Args:
        requests_per_s: what one address may ask; with 0 none is limited. links: what its links count.
        silences_s: per member, how long its link has been silent.
        order_book: where the chain has the contract that takes orders, for those who place one from the page.
    """
    # FastAPI's own pages fetch their scripts from another host.
    app = _App(title="DTN aggregator", version="1", docs_url=None, redoc_url=None, responses=dict(_ERRORS))
    one_error_shape(app)
    answers, feed = Counter[str](), Feed(node)
    app.add_middleware(Gate, node=node, per_s=requests_per_s, counters=answers)
    _standing(app, node, alarms, order_book.lower() if order_book else None)
    add_reads(app, node)
    add_writes(app, node)
    _events(app, feed)
    add_metrics(app, Sources(node, feed, answers, alarms, links if links is not None else {}, silences_s))
    add_page(app, node)
    return app


class _App(FastAPI):
    """FastAPI, with a schema that says what is true: bad requests are 400 here, never 422."""

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document."""
        if self.openapi_schema is None:
            document = super().openapi()
            for path in document["paths"].values():
                for operation in path.values():
                    operation["responses"].pop("422", None)
            for name in ("HTTPValidationError", "ValidationError"):
                document["components"]["schemas"].pop(name, None)
        return self.openapi_schema or {}


def _standing(app: FastAPI, node: Aggregator, alarms: Alarms, order_book: str | None) -> None:
    @app.get("/v1/status", response_model=schema.Status)
    async def status() -> Response:
        """Where this aggregator stands."""
        state, replica = node.state, node.replica
        return fresh(
            {
                "network": {
                    "chainId": node.members.domain.chain_id,
                    "parameters": views.hexed(node.members.domain.verifying_contract),
                    "treasury": views.hexed(state.treasury),
                    "orders": order_book,
                },
                "version": software_version(),
                "protocolVersion": state.version,
                "protocolUpgrade": state.upgrade
                and {"version": state.upgrade.version, "first": state.upgrade.first},
                "protocolSupported": [node.rules.versions.low, node.rules.versions.high],
                "member": node.index,
                "committeeEpoch": node.members.epoch,
                "handover": state.handover,
                "members": [views.hexed(address) for address in node.members.addresses],
                "view": replica.view,
                "active": replica.active,
                "primary": replica.primary,
                "executed": replica.executed,
                "stable": replica.low,
                "ledgerTimeMs": state.now_ms,
                "clockMs": now_ms(),
                "origin": state.origin.number if state.origin else None,
                "waiting": len(node.mempool) + len(node.intake),
                "orders": len(state.table),
                "settledEpoch": state.settled_epoch,
                "alarms": alarms(),
            }
        )

    @app.get("/v1/committee", response_model=schema.CommitteeAnswer)
    async def committee() -> Response:
        """Who orders the ledger now, and where each member's API is."""
        return fresh(
            {
                "committeeEpoch": node.members.epoch,
                "member": node.index,
                "members": [
                    {
                        "index": index,
                        "account": views.hexed(account),
                        "api": api_address(node.state.nodes.get(account, Node()).endpoint),
                    }
                    for index, account in enumerate(node.members.addresses)
                ],
            }
        )

    @app.get("/healthz", response_class=PlainTextResponse, responses={503: {"content": {"text/plain": {}}}})
    async def health() -> Response:
        """200 while this member takes part, 503 while it does not."""
        raised = alarms()
        ready = node.replica.active and not raised
        return PlainTextResponse(
            "ok" if ready else "; ".join(raised) or "changing view", 200 if ready else 503
        )

    @app.get("/readyz", response_class=PlainTextResponse, responses={503: {"content": {"text/plain": {}}}})
    async def ready() -> Response:
        """200 while clients are well served here, 503 while they should ask another member."""
        return PlainTextResponse(node.unready or "ok", 200 if node.ready else 503)


def _events(app: FastAPI, feed: Feed) -> None:
    @app.get(
        "/v1/events",
        response_class=StreamingResponse,
        responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
    )
    async def events(request: Request, after: str | None = None) -> Response:
        """What the ledger does, as server-sent events; ``Last-Event-ID`` or ``after`` says from where on."""
        given = request.headers.get("last-event-id") or after
        start = event_id(given) if given else None
        if given and start is None:
            raise ApiError(400, "BadRequest", "an event id is SEQUENCE-INDEX, as the stream gives them")
        host = request.client.host if request.client else "unknown"
        try:
            return EventStream(feed, feed.subscribe(host, start))
        except TooManyReaders as reason:
            raise ApiError(429, "TooManyReaders", str(reason), {"Retry-After": "5"}) from reason
