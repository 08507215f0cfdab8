"""Serving public files over HTTP, as a trustless gateway: blocks and CARs, which the reader checks.

``GET|HEAD /ipfs/CID?format=raw`` answers with the block, ``?format=car`` with the file's blocks in
depth-first order (``dag-scope`` and ``entity-bytes`` cut it), and neither of them with the file itself, for
people and ordinary HTTP clients, by ``Range`` if wanted. The ``Accept`` header says the same.

Guarantees: nothing but public blocks leaves, each checked against its CID as it is read; one block per
request is in memory; what has a CID never changes, so every answer may be kept for ever.

Source: specs.ipfs.tech/http-gateways/trustless-gateway (IPIPs 402 and 412), RFC 9110 for ranges and
preconditions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Final, Literal, NamedTuple

from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse, Response, StreamingResponse

from offchain.serving import HttpServer
from offchain.storage.car import write_car
from offchain.storage.cid import Cid, InvalidCid
from offchain.storage.embedded import NotStored
from offchain.storage.store import Store
from offchain.storage.unixfs import Block, read_range, size_of, walk
from protocol.errors import ProtocolError

RAW_TYPE: Final = "application/vnd.ipld.raw"
CAR_TYPE: Final = "application/vnd.ipld.car"
FILE_TYPE: Final = "application/octet-stream"
IMMUTABLE: Final = "public, max-age=29030400, immutable"

_PROBE: Final = "bafkqaaa"
"""The CID of nothing, written out in itself: what one asks for to see whether a gateway is one."""
_PROBE_CAR: Final = bytes.fromhex("19a265726f6f747381d82a4500015500006776657273696f6e01")
_MAX_ACCEPT: Final = 1024
_RANGE: Final = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
_ENTITY_BYTES: Final = re.compile(r"(-?\d{1,18}):(\*|-?\d{1,18})")

Form = Literal["raw", "car", "file"]
_TYPES: Final[dict[str, Form]] = {
    RAW_TYPE: "raw",
    CAR_TYPE: "car",
    FILE_TYPE: "file",
    "application/*": "file",
    "*/*": "file",
}


class Gateway(HttpServer):
    """Serves one store's public blocks from a thread of its own.

    Raises:
        CannotServe: the address is taken.
    """

    def __init__(self, store: Store, host: str = "127.0.0.1", port: int = 0) -> None:
        super().__init__(_app(store), "gateway", host, port)


class _Refusal(ProtocolError):
    """A request that is not answered with a file."""

    def __init__(self, status: int, why: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(why)
        self.status = status
        self.headers = headers or {}


class _Wanted(NamedTuple):
    """What a request asks for."""

    form: Form
    repeats: bool = False
    """Whether a CAR is to hold a block as often as it occurs."""


def _app(store: Store) -> FastAPI:
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    # Not a coroutine: stores read from the disk, so each request runs in a thread of the pool.
    @app.api_route("/ipfs/{text:path}", methods=["GET", "HEAD"])
    def file(text: str, request: Request) -> Response:
        try:
            return _answer(store, text, request)
        except _Refusal as refusal:
            return PlainTextResponse(str(refusal), refusal.status, refusal.headers)
        except ProtocolError as reason:
            # The backend does not answer: it is not the reader's fault, and may be over soon.
            return PlainTextResponse(f"the store cannot be read now: {reason}", 503)

    return app


def _answer(store: Store, text: str, request: Request) -> Response:
    wanted = _wanted(request)
    if text == _PROBE:
        return _probe(wanted)
    root, _, path = text.partition("/")
    try:
        cid = Cid.parse(root)
    except InvalidCid as reason:
        raise _Refusal(400, str(reason)) from reason
    if path:
        raise _Refusal(404, f"{cid} is a file: it has no {path[:80]!r}")
    etag = _etag(cid, wanted, request)
    seen = request.headers.get("if-none-match", "")
    block = store.public_block(cid)
    if block is None:
        if "only-if-cached" in request.headers.get("cache-control", ""):
            raise _Refusal(412, f"{cid} is not here")
        raise _Refusal(404, f"{cid} is not public here")
    headers = {
        "Cache-Control": IMMUTABLE,
        "Etag": etag,
        "Vary": "Accept",
        "X-Content-Type-Options": "nosniff",
        "X-Ipfs-Path": f"/ipfs/{cid}",
    }
    if seen.strip() == "*" or etag in (each.strip().removeprefix("W/") for each in seen.split(",")):
        return Response(status_code=304, headers=headers)
    match wanted.form:
        case "raw":
            headers["Content-Disposition"] = f'attachment; filename="{cid}.bin"'
            return Response(block, media_type=RAW_TYPE, headers=headers)
        case "car":
            headers["Content-Disposition"] = f'attachment; filename="{cid}.car"'
            return _car(store, cid, block, wanted, request, headers)
        case "file":
            headers["Content-Disposition"] = f'attachment; filename="{cid}"'
            return _file(store, cid, block, request, headers)


def _probe(wanted: _Wanted) -> Response:
    body, kind = (_PROBE_CAR, _car_type(wanted)) if wanted.form == "car" else (b"", RAW_TYPE)
    return Response(body, media_type=kind, headers={"X-Content-Type-Options": "nosniff"})


# What is asked for ---------------------------------------------------------------------------------------


def _wanted(request: Request) -> _Wanted:
    """The form of the answer: the query's word before the header's."""
    accepted = _accepted(request.headers.get("accept", ""))
    named = request.query_params.get("format")
    if named is None:
        if accepted is None:
            types = f"{RAW_TYPE}, {CAR_TYPE} (version 1, order dfs) or {FILE_TYPE}"
            raise _Refusal(406, f"what is served here is {types}")
        return accepted
    if named == "raw":
        return _Wanted("raw")
    if named != "car":
        raise _Refusal(400, f"format is raw or car, not {named[:80]!r}")
    asked = {name: request.query_params.get(f"car-{name}", "") for name in ("version", "order", "dups")}
    form = _car_form(asked)
    if form is None:
        raise _Refusal(406, "a CAR has version 1, order dfs and dups y or n here")
    if not asked["dups"] and accepted is not None and accepted.form == "car":
        return accepted
    return form


def _accepted(header: str) -> _Wanted | None:
    """What the ``Accept`` header likes best of what there is; none if it likes none of it."""
    if not header:
        return _Wanted("file")
    best, weight = None, 0.0
    for item in header[:_MAX_ACCEPT].split(","):
        kind, *rest = (part.strip().lower() for part in item.split(";"))
        given = {name.strip(): value.strip() for name, _, value in (part.partition("=") for part in rest)}
        form = _TYPES.get(kind)
        wanted = _car_form(given) if form == "car" else _Wanted(form) if form is not None else None
        try:
            quality = float(given.get("q", "1"))
        except ValueError:
            continue
        if wanted is not None and quality > weight:
            best, weight = wanted, quality
    return best


def _car_form(asked: dict[str, str]) -> _Wanted | None:
    """A CAR with these parameters; none if it cannot be had."""
    possible = {"version": ("", "1"), "order": ("", "dfs", "unk"), "dups": ("", "y", "n")}
    if any(asked.get(name, "") not in values for name, values in possible.items()):
        return None
    return _Wanted("car", asked.get("dups") == "y")


def _car_type(wanted: _Wanted) -> str:
    return f"{CAR_TYPE}; version=1; order=dfs; dups={'y' if wanted.repeats else 'n'}"


def _etag(cid: Cid, wanted: _Wanted, request: Request) -> str:
    if wanted.form != "car":
        return f'"{cid}.raw"' if wanted.form == "raw" else f'"{cid}"'
    scope = request.query_params.get("dag-scope", "all")
    part = request.query_params.get("entity-bytes", "")
    if scope not in ("all", "entity", "block"):
        raise _Refusal(400, f"dag-scope is all, entity or block, not {scope[:80]!r}")
    if part and not _ENTITY_BYTES.fullmatch(part):
        raise _Refusal(400, "entity-bytes is FROM:TO in bytes, negative from the end, or FROM:*")
    return f'"{cid}.car.{scope}.{part.replace("*", "end")}.{"y" if wanted.repeats else "n"}"'


# What is answered ----------------------------------------------------------------------------------------


def _public(store: Store) -> Callable[[Cid], bytes]:
    def read(cid: Cid) -> bytes:
        block = store.public_block(cid)
        if block is None:
            # In the middle of an answer: the reader sees that it ends too early.
            raise NotStored(f"{cid} is damaged, or was dropped while it was served")
        return block

    return read


def _streamed(
    body: Iterator[bytes], kind: str, headers: dict[str, str], request: Request, status: int = 200
) -> Response:
    if request.method == "HEAD":
        # Without Content-Length for a CAR: how long it is shows only when it has been walked.
        return _Bodyless(status, kind, headers)
    return StreamingResponse(body, status, headers, kind)


class _Bodyless(Response):
    """The headers of an answer whose body was not asked for."""

    def __init__(self, status: int, kind: str, headers: dict[str, str]) -> None:
        super().__init__(None, status, headers, kind)

    def init_headers(self, headers: Mapping[str, str] | None = None) -> None:
        """As given: what the base class would add is the length of no body."""
        given = {**(headers or {}), "Content-Type": str(self.media_type)}
        self.raw_headers = [(name.lower().encode(), value.encode()) for name, value in given.items()]


def _car(
    store: Store, cid: Cid, block: bytes, wanted: _Wanted, request: Request, headers: dict[str, str]
) -> Response:
    size = size_of(cid, block)
    start, end = _entity(request.query_params.get("entity-bytes", ""), size)
    if request.query_params.get("dag-scope") == "block":
        blocks: Iterator[Block] = iter([(cid, block)])
    else:
        blocks = _blocks(store, cid, start, end, wanted.repeats)
    return _streamed(write_car([cid], blocks), _car_type(wanted), headers, request)


def _blocks(store: Store, root: Cid, start: int, end: int, repeats: bool) -> Iterator[Block]:
    seen = set()
    for _, cid, block in walk(root, _public(store), start=start, end=end):
        if repeats or cid not in seen:
            yield cid, block
        if not repeats:
            seen.add(cid)


def _entity(text: str, size: int) -> tuple[int, int]:
    """The part of a file that ``entity-bytes`` names: first byte, and after the last one."""
    match = _ENTITY_BYTES.fullmatch(text)
    if match is None or not size:
        return 0, size
    start, last = int(match[1]), size - 1 if match[2] == "*" else int(match[2])
    start = max(0, size + start) if start < 0 else start
    last = size + last if last < 0 else last
    if last < start or start >= size:
        raise _Refusal(400, f"bytes {text} are none of a file of {size} bytes")
    return start, min(last + 1, size)


def _file(store: Store, cid: Cid, block: bytes, request: Request, headers: dict[str, str]) -> Response:
    size = size_of(cid, block)
    headers["Accept-Ranges"] = "bytes"
    start, end, status = 0, size, 200
    # A range in another unit, or several at once, may be ignored (RFC 9110, 14.2).
    match = _RANGE.fullmatch(request.headers.get("range", ""))
    matches = request.headers.get("if-range", headers["Etag"]) == headers["Etag"]
    if match is not None and matches and match[0] != "bytes=-":
        start, end = _byte_range(match[1], match[2], size)
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
        status = 206
    headers["Content-Length"] = str(end - start)
    return _streamed(read_range(cid, _public(store), start, end), FILE_TYPE, headers, request, status)


def _byte_range(first: str, last: str, size: int) -> tuple[int, int]:
    """First byte, and after the last one, of a ``Range``."""
    if first:
        start, end = int(first), min(int(last) + 1, size) if last else size
    else:
        start, end = max(0, size - int(last)), size
    if start >= end or start >= size:
        raise _Refusal(416, f"the file has {size} bytes", {"Content-Range": f"bytes */{size}"})
    return start, end
