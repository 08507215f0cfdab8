"""Reading a server-sent event stream as a client would, over a real socket."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import httpx


class Told(NamedTuple):
    """One event."""

    id: str | None
    name: str
    data: Any


async def parse(lines: AsyncIterator[str]) -> AsyncIterator[Told]:
    """Events of a stream; comments are passed over."""
    fields: dict[str, str] = {}
    async for line in lines:
        if line.startswith(":"):
            continue
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif "data" in fields:
            yield Told(fields.get("id"), fields["event"], json.loads(fields["data"]))
            fields = {}
        else:
            fields = {}


@contextlib.asynccontextmanager
async def following(url: str, after: str | None = None) -> AsyncIterator[AsyncIterator[Told]]:
    """The events of one aggregator, from an id on or from now on."""
    headers = {} if after is None else {"Last-Event-ID": after}
    timeout = httpx.Timeout(5, read=20)
    async with (
        httpx.AsyncClient(timeout=timeout) as http,
        http.stream("GET", f"{url}/v1/events", headers=headers) as response,
    ):
        assert response.status_code == 200, await response.aread()
        assert response.headers["content-type"].startswith("text/event-stream")
        yield parse(response.aiter_lines())


async def take(events: AsyncIterator[Told], count: int) -> list[Told]:
    """The next ``count`` events that have an id."""
    found: list[Told] = []
    async for event in events:
        if event.id is not None:
            found.append(event)
            if len(found) == count:
                return found
    raise AssertionError(f"the stream ended after {found}")
