"""What stands between the socket and the routes: request ids, CORS, limits, and turns with the replica.

The API shares one event loop with the replica. So reads are worked on one at a time, and between any two of
them the replica and everybody else get a turn: whatever a thousand readers ask, consensus waits for one
answer at most. Each answer is bounded where it is built. Whoever reads slowly holds nothing but its own
connection: an answer is complete before its first byte leaves.

Guarantees: one address gets at most `BURST_S` seconds' worth of requests at once and ``per_s`` from then on
(the machine itself is exempt: its operator's own processes); at most `MAX_WAITING` reads wait for their
turn; a handler's bug is a 500 of the one error shape, logged with its request id.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import re
import time
import uuid
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from aggregator.api.errors import error_answer
from aggregator.node import Aggregator

log = logging.getLogger(__name__)

MAX_WAITING: Final = 256
MAX_ADDRESSES: Final = 4_096
"""Addresses whose use is remembered; the one unused for longest is forgotten first."""
BURST_S: Final = 4.0
"""How many seconds' worth of requests an address may send at once."""
MAX_QUERY_BYTES: Final = 4_096
LONG_LIVED: Final = "/v1/events"
WITHOUT_COMMITTEE: Final = ("/v1/status", "/v1/committee")
"""What an aggregator answers even while it is no member, or halted."""

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_EXPOSED: Final = "ETag, Retry-After, X-Request-Id"


def network_of(host: str) -> str | None:
    """What is limited as one: an IPv4 address, an IPv6 network of 64 bits; none for this machine itself."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if address.version == 6:
        if address.ipv4_mapped is not None:
            return network_of(str(address.ipv4_mapped))
        if not address.is_loopback:
            return str(ipaddress.ip_network((int(address) >> 64 << 64, 64)))
    return None if address.is_loopback else host


class Allowance:
    """Token buckets by address: ``per_s`` requests per second each, saved up for `BURST_S`."""

    def __init__(self, per_s: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s = per_s
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """Per address what is left and as of when."""

    def wait_s(self, host: str) -> float:
        """Take one request's worth; zero if it may pass, else how long it has to wait."""
        network = network_of(host)
        if network is None or not self._per_s:
            return 0.0
        now_s = self._clock()
        most = self._per_s * BURST_S
        left, then_s = self._buckets.pop(network, (most, now_s))
        left = min(most, left + (now_s - then_s) * self._per_s)
        passes = left >= 1
        self._buckets[network] = (left - 1 if passes else left, now_s)
        if len(self._buckets) > MAX_ADDRESSES:
            self._buckets.popitem(last=False)
        return 0.0 if passes else (1 - left) / self._per_s


class Gate:
    """ASGI middleware; see above."""

    def __init__(self, app: ASGIApp, *, node: Aggregator, per_s: int, counters: Counter[str]) -> None:
        self._app = app
        self._node = node
        self._allowance = Allowance(per_s)
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._counters = counters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"").decode("latin-1")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        started_s = time.monotonic()
        status = 0

        async def leave(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                out = MutableHeaders(scope=message)
                out["X-Request-Id"] = request_id
                out["X-Content-Type-Options"] = "nosniff"
                if scope["method"] in ("GET", "HEAD", "OPTIONS"):
                    out["Access-Control-Allow-Origin"] = "*"
                    out["Access-Control-Expose-Headers"] = _EXPOSED
            await send(message)

        try:
            answer = self._refusal(scope, headers)
            if answer is not None:
                await answer(scope, receive, leave)
            elif scope["method"] in ("GET", "HEAD") and scope["path"] != LONG_LIVED:
                await self._in_turn(scope, receive, leave)
            else:
                await self._app(scope, receive, leave)
        except Exception:
            # A bug in a handler is told to the reader and to the operator; the replica goes on.
            log.exception("request %s: %s %.200r failed", request_id, scope["method"], scope["path"])
            if status == 0:
                answer = error_answer(500, "Internal", f"a bug; its log entry is request {request_id}")
                await answer(scope, receive, leave)
        finally:
            took_ms = (time.monotonic() - started_s) * 1000
            self._counters[
                f"{scope['method'] if scope['method'] in ('GET', 'POST') else 'other'} {status}"
            ] += 1
            log.debug(
                "request %s: %s %.200r from %s: %d in %.1f ms",
                *(request_id, scope["method"], scope["path"], _host(scope), status, took_ms),
            )

    def _refusal(self, scope: Scope, headers: dict[bytes, bytes]) -> ASGIApp | None:
        """The answer that needs no route; none if the request may go on."""
        path = scope["path"]
        if scope["method"] == "OPTIONS" and b"access-control-request-method" in headers:
            return _preflight()
        wait_s = self._allowance.wait_s(_host(scope))
        if wait_s:
            seconds = {"Retry-After": str(int(wait_s) + 1)}
            return error_answer(429, "TooManyRequests", "slow down, or ask another member too", seconds)
        if len(scope["query_string"]) > MAX_QUERY_BYTES:
            return error_answer(413, "TooLarge", f"a query has at most {MAX_QUERY_BYTES} bytes")
        if path.startswith("/v1/") and path not in WITHOUT_COMMITTEE and self._node.index is None:
            # It may be far behind, cut off from the others.
            return error_answer(503, "NoMember", "this aggregator is not in the committee now; ask another")
        if path.startswith("/v1/") and path not in WITHOUT_COMMITTEE and self._node.outdated:
            # The ledger that it has is not the network's any more.
            return error_answer(503, "Outdated", f"{self._node.version_alarm}; ask another aggregator")
        return None

    async def _in_turn(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._waiting >= MAX_WAITING:
            busy = error_answer(503, "Busy", "too many readers; ask another member", {"Retry-After": "1"})
            await busy(scope, receive, send)
            return
        messages: list[Message] = []

        async def keep(message: Message) -> None:
            messages.append(message)

        self._waiting += 1
        try:
            async with self._turn:
                await asyncio.sleep(0)  # the replica's turn
                # What may be read may be asked about: HEAD is GET without the body.
                await self._app(dict(scope, method="GET"), receive, keep)
        finally:
            self._waiting -= 1
        for message in messages:
            if scope["method"] == "HEAD" and message["type"] == "http.response.body":
                message = {"type": "http.response.body", "body": b""}
            await send(message)


def _host(scope: Scope) -> str:
    client = scope.get("client")
    return str(client[0]) if client else "unknown"


def _preflight() -> ASGIApp:
    return Response(
        status_code=204,
        headers={
            "Access-Control-Allow-Methods": "GET",
            "Access-Control-Allow-Headers": "If-None-Match, Last-Event-ID, X-Request-Id",
            "Access-Control-Max-Age": "86400",
        },
    )
