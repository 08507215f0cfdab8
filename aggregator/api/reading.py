"""How reads are answered: opaque cursors, entity tags from the ledger's sequence number, and a bounded cache.

What the ledger shows changes only when a batch is executed. So an answer is built at most once per sequence
number, and a reader that names the tag of what it has is told "not modified" without anything being built.

Guarantees: `Cursor` accepts only what it made; the cache holds at most `MAX_CACHED_BYTES`.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from fastapi import Request
from fastapi.responses import Response

from aggregator.api.errors import ApiError

MAX_CACHED_BYTES: Final = 16 * 1024 * 1024
MAX_CURSOR_CHARS: Final = 256
MAX_SCANNED: Final = 2_000
"""Rows that one request looks through; a filter that finds too few among them gives a short page."""

Json = dict[str, Any]
Key = tuple[int | str, ...]
"""A row's place in its list: lists are sorted by it, ascending."""


class Cursor:
    """Where a page of the list ``name`` ended, as text that means nothing to whoever carries it."""

    def __init__(self, name: str, *parts: type[int] | type[str]) -> None:
        self._name, self._parts = name, parts

    def encode(self, key: Key) -> str:
        """The cursor after the row with this key."""
        data = msgspec.json.encode([self._name, *map(str, key)])
        return base64.urlsafe_b64encode(data).decode().rstrip("=")

    def decode(self, text: str) -> Key:
        """The key in a cursor; raises `ApiError` (400) for what is none of this list's."""
        try:
            data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
            name, *parts = msgspec.json.decode(data, type=list[str])
            if name != self._name:
                raise ValueError(f"a cursor of {name}")
            return tuple(make(part) for make, part in zip(self._parts, parts, strict=True))
        except (ValueError, binascii.Error, msgspec.DecodeError) as reason:
            raise ApiError(
                400, "BadCursor", f"no cursor of {self._name}: give back what `next` of a page said"
            ) from reason


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list."""

    rows: list[Any]
    next: str | None
    """The cursor of the next page; none on the last."""


def page(
    rows: Iterable[tuple[Key, Any]], cursor: Cursor, limit: int, wanted: Callable[[Any], bool] | None = None
) -> Page:
    """At most ``limit`` of the rows that are ``wanted``, of at most `MAX_SCANNED` looked at."""
    found: list[Any] = []
    last: Key | None = None
    numbered: Iterator[tuple[int, tuple[Key, Any]]] = enumerate(rows)
    for number, (key, row) in numbered:
        if len(found) >= limit or number >= MAX_SCANNED:
            return Page(found, cursor.encode(last) if last is not None else None)
        last = key
        if wanted is None or wanted(row):
            found.append(row)
    return Page(found, None)


def json_response(body: bytes, headers: dict[str, str]) -> Response:
    """A JSON answer that is encoded already."""
    return Response(body, media_type="application/json", headers=headers)


@dataclass(slots=True)
class Reader:
    """Answers of one sequence number, by path and query."""

    kind: str
    """What the sequence number counts; part of every tag."""
    _mark: str = ""
    _kept: dict[str, bytes] = field(default_factory=dict)
    _kept_bytes: int = 0

    def answer(self, request: Request, sequence: int, build: Callable[[], Json]) -> Response:
        """The answer to ``request`` as of a sequence number; ``build`` is asked only if it must be."""
        mark = f"{self.kind}{sequence}"
        headers = {"ETag": f'W/"{mark}"', "Cache-Control": "no-cache"}
        # Not "*": whether there is anything at this path is only known once it is built.
        told = request.headers.get("if-none-match", "").split(",")
        if headers["ETag"] in (tag.strip() for tag in told):
            return Response(status_code=304, headers=headers)
        if mark != self._mark:
            self._mark, self._kept, self._kept_bytes = mark, {}, 0
        asked = f"{request.url.path}?{request.url.query}"
        body = self._kept.get(asked)
        if body is None:
            body = msgspec.json.encode(build())
            if self._kept_bytes + len(asked) + len(body) <= MAX_CACHED_BYTES:
                self._kept[asked] = body
                self._kept_bytes += len(asked) + len(body)
        return json_response(body, headers)


def fresh(build: Json, status: int = 200) -> Response:
    """An answer that holds for this moment only."""
    body = msgspec.json.encode(build)
    return Response(body, status, media_type="application/json", headers={"Cache-Control": "no-store"})
