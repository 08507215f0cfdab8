"""Watching an order: told by an aggregator's event stream when to look, believing only what f + 1 say alike.

An event is a hint of one member, who may lie or keep silent. So each hint leads to the question that counts,
`Network.agreed`, and it is asked every `RECHECK_S` without a hint too. A stream that breaks is taken up at
the next aggregator, from then on and after one more look: so nothing is missed, and no liar's event id can
make an honest aggregator skip what happened. Where none streams, the order is asked for every `POLL_S`.

Guarantees: every `Update` is what f + 1 members answered alike; nothing is yielded twice; an event has at
most `MAX_EVENT_BYTES`.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import httpx

from offchain.committee import Committee
from offchain.network import LedgerRefused, Network, NetworkError, NotFound

log = logging.getLogger(__name__)

POLL_S: Final = 2.0
RECHECK_S: Final = 30.0
SILENCE_S: Final = 25.0
"""A stream that says nothing for so long, no comment either, is dead: one comes every 15 seconds."""
MAX_EVENT_BYTES: Final = 256 * 1024
FINAL: Final = "settled"

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Event:
    """One server-sent event; the id is none for what is only one member's own."""

    id: str | None
    name: str
    data: Json


@dataclass(frozen=True, slots=True)
class Update:
    """An order as f + 1 aggregators describe it."""

    oid: str
    phase: str
    detail: Json
    """The answer of ``GET /v1/orders/OID``."""


class BadStream(Exception):
    """What an aggregator sends is no event stream."""


class EventParser:
    """Bytes of a stream to events; keeps at most `MAX_EVENT_BYTES`."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[Event]:
        """The events that are complete now.

        Raises:
            BadStream: an event is too large, or its data no JSON object.
        """
        *blocks, self._rest = (self._rest + data).replace(b"\r\n", b"\n").split(b"\n\n")
        if max(map(len, (self._rest, *blocks))) > MAX_EVENT_BYTES:
            raise BadStream(f"an event of more than {MAX_EVENT_BYTES} bytes")
        return [event for block in blocks if (event := _event(block)) is not None]


def _event(block: bytes) -> Event | None:
    """The event in a block of lines; none if it is a comment or a setting."""
    fields: dict[str, str] = {}
    for line in block.decode("utf-8", "replace").split("\n"):
        name, _, value = line.partition(":")
        if name:
            fields[name] = value.removeprefix(" ")
    if "data" not in fields:
        return None
    try:
        data = json.loads(fields["data"])
    except (ValueError, RecursionError) as reason:
        raise BadStream(f"an event's data is no JSON: {reason}") from reason
    if not isinstance(data, dict):
        raise BadStream("an event's data is no object")
    return Event(fields.get("id"), fields.get("event", "message"), data)


def concerns(event: Event, oid: str) -> bool:
    """Whether an event says that the order may have changed, or that something may have been missed."""
    if event.name in ("view", "gap"):
        return True
    orders = event.data.get("orders")
    return event.data.get("oid") == oid or (isinstance(orders, list) and oid in orders)


def watch(
    network: Network,
    oid: bytes,
    committee: Callable[[], Committee | None],
    *,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[Update]:
    """The states of an order, each as f + 1 aggregators describe it, until it is settled.

    Args:
        committee: the committee in force as the chain has it, or none while the chain is silent; see
            `Network.agreed`. stop: asked between two looks; true ends the watching.

    An order that is not in the ledger yet is waited for. Aggregators that are down or disagree are asked
    again.
    """
    name = "0x" + oid.hex()
    known: Json | None = None
    for _ in hints(network, name, stop):
        detail = _agreed(network, name, committee)
        if detail is None or detail == known:
            continue
        known = detail
        yield Update(name, str(detail.get("phase")), detail)
        if detail.get("phase") == FINAL:
            return


def _agreed(network: Network, oid: str, committee: Callable[[], Committee | None]) -> Json | None:
    """What f + 1 members say of the order; none if it is not there, or they do not agree (yet)."""
    try:
        found: Json = network.agreed(f"/v1/orders/{oid}", lambda answer: {**answer}, committee())
        return found
    except (NotFound, LedgerRefused):
        return None
    except NetworkError as reason:
        log.debug("%s", reason)
        return None


def hints(network: Network, oid: str, stop: Callable[[], bool]) -> Iterator[None]:
    """Yields when it is time to look at the order: at once, after every event about it, and now and then."""
    yield None
    turn = 0
    while not stop():
        url = network.file.aggregators[turn % len(network.file.aggregators)].rstrip("/")
        turn += 1
        try:
            for event in _stream(url):
                if stop():
                    return
                if event is None or concerns(event, oid):
                    yield None
        except (httpx.HTTPError, httpx.InvalidURL, BadStream) as reason:
            log.debug("%s streams no events: %s", url, reason)
        # Whatever was missed in between is seen here, and where nobody streams this is the polling.
        time.sleep(POLL_S)
        yield None


def _stream(url: str) -> Iterator[Event | None]:
    """Events as they come; none when it is time to look again without one."""
    headers = {"Accept": "text/event-stream"}
    parser = EventParser()
    looked_s = time.monotonic()
    timeout = httpx.Timeout(SILENCE_S, connect=2.0)
    with httpx.stream("GET", f"{url}/v1/events", headers=headers, timeout=timeout) as response:
        if response.status_code != 200 or not response.headers.get("content-type", "").startswith(
            "text/event-stream"
        ):
            raise BadStream(f"it answers {response.status_code}")
        for chunk in response.iter_bytes():
            yield from parser.feed(chunk)
            if time.monotonic() - looked_s > RECHECK_S:
                looked_s = time.monotonic()
                yield None
