"""Routes that send ledger transactions and tell what became of them.

Bodies above `MAX_BODY_BYTES` and `MAX_BATCH_BODY_BYTES` are refused before they are read.
"""

from __future__ import annotations

import time
from typing import Annotated, Any, Final

import msgspec
from fastapi import FastAPI, Query, Request
from fastapi.responses import Response

from aggregator.api import schema, views
from aggregator.api.errors import ApiError
from aggregator.api.reading import fresh
from aggregator.api.reads import TxId, parsed
from aggregator.ledger.transition import ACCEPTED
from aggregator.member.execution import OrderedResult
from aggregator.member.mempool import PoolFull
from aggregator.member.pooling import Submitted
from aggregator.node import TURN, Aggregator
from aggregator.pbft.messages import MAX_FORWARDED
from protocol import tracing
from protocol.certificate import certificate_to_json
from protocol.errors import ProtocolError
from protocol.transactions import MAX_TRANSACTION_BYTES, OrderTransaction, transaction_from_json

MAX_BODY_BYTES: Final = 4 * MAX_TRANSACTION_BYTES
MAX_BATCH_BODY_BYTES: Final = 1024 * 1024
MAX_WAIT_S: Final = 60.0

Json = dict[str, Any]
_BATCH_DECODER: Final = msgspec.msgpack.Decoder(list[bytes])
_BODY: Final = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["type", "message", "signature"],
                    "additionalProperties": False,
                    "properties": {
                        "type": {"type": "string"},
                        "message": {"type": "object"},
                        "signature": {"type": "string", "pattern": "^0x[0-9a-fA-F]{130}$"},
                    },
                }
            }
        },
    }
}
_BATCH_BODY: Final = {
    "requestBody": {
        "required": True,
        "content": {"application/msgpack": {"schema": {"type": "string", "format": "binary"}}},
    }
}


def add_writes(app: FastAPI, node: Aggregator) -> None:
    """Add the routes under ``/v1/transactions``."""

    @app.post(
        "/v1/transactions",
        status_code=202,
        response_model=schema.TransactionAnswer,
        responses={200: {"model": schema.TransactionAnswer}},
        openapi_extra=_BODY,
    )
    async def submit(
        request: Request, wait_s: Annotated[float, Query(ge=0, le=MAX_WAIT_S)] = 0.0
    ) -> Response:
        """Send a signed transaction; with ``wait_s`` the answer says what became of it."""
        began_s, document = time.time(), await _body(request)
        _require_room(node)
        await node.turn(1)
        tx_id, refusal = _admit(node, document)
        if tracing.enabled():
            _trace(document, tx_id, began_s, refusal)
        if refusal is not None:
            raise refusal
        ordered = await node.outcome(tx_id, wait_s) if wait_s else node.results.get(tx_id)
        answer = _transaction(node, tx_id, ordered)
        if ordered is not None and ordered.result.code != ACCEPTED:
            raise ApiError(409, ordered.result.code, ordered.result.reason)
        return fresh(answer, 200 if ordered else 202)

    @app.post(
        "/v1/transactions/batch",
        status_code=202,
        response_model=schema.BatchAnswer,
        openapi_extra=_BATCH_BODY,
    )
    async def submit_batch(request: Request) -> Response:
        """Send many signed transactions; the answers stand in the same order, each with its own outcome."""
        items = await _batch(request)
        answers: list[Submitted] = []
        _require_room(node)
        for start in range(0, len(items), TURN):
            part = items[start : start + TURN]
            await node.turn(len(part))
            answers += node.offer_all(part)
        return fresh({"transactions": [_submitted(node, item) for item in answers]}, 202)

    @app.get("/v1/transactions/{tx_id}", response_model=schema.TransactionAnswer)
    async def transaction(tx_id: TxId) -> Response:
        """What became of a transaction."""
        wanted = parsed(tx_id)
        ordered = node.results.get(wanted)
        if ordered is None and wanted not in node.mempool:
            raise ApiError(404, "UnknownTransaction", f"no transaction {tx_id} is known here")
        return fresh(_transaction(node, wanted, ordered))


def _require_room(node: Aggregator) -> None:
    if node.crowded:
        raise ApiError(429, "PoolFull", "too much is waiting here; try again later or elsewhere")


async def _batch(request: Request) -> list[bytes]:
    declared = request.headers.get("content-length", "")
    if not (declared.isascii() and declared.isdigit()) or int(declared) > MAX_BATCH_BODY_BYTES:
        raise ApiError(413, "TooLarge", f"a batch of transactions has at most {MAX_BATCH_BODY_BYTES} bytes")
    try:
        items = _BATCH_DECODER.decode(await request.body())
    except msgspec.DecodeError as reason:
        raise ApiError(
            400, "BadRequest", f"the body is not a msgpack array of byte strings: {reason}"
        ) from reason
    if len(items) > MAX_FORWARDED:
        raise ApiError(
            413, "TooLarge", f"a batch has at most {MAX_FORWARDED} transactions, this one {len(items)}"
        )
    return items


def _submitted(node: Aggregator, item: Submitted) -> Json:
    """One answer of a batch; what could not be read has no id."""
    if isinstance(item, Exception):
        return {"id": None, "status": "refused", "code": type(item).__name__, "reason": str(item)}
    tx_id, outlook = item
    ordered = node.results.get(tx_id)
    if outlook is None and ordered is None:
        return {"id": views.hexed(tx_id), "status": "waiting"}
    result = outlook if outlook is not None else ordered.result  # type: ignore[union-attr]
    status = "accepted" if result.code == ACCEPTED else "refused"
    return {"id": views.hexed(tx_id), "status": status, "code": result.code, "reason": result.reason}


async def _body(request: Request) -> object:
    declared = request.headers.get("content-length", "")
    if not (declared.isascii() and declared.isdigit()) or int(declared) > MAX_BODY_BYTES:
        raise ApiError(413, "TooLarge", f"a transaction's JSON has at most {MAX_BODY_BYTES} bytes")
    try:
        return await request.json()
    except (ValueError, RecursionError) as reason:
        raise ApiError(400, "BadRequest", f"the body is not JSON: {reason}") from reason


def _admit(node: Aggregator, document: object) -> tuple[bytes, ApiError | None]:
    try:
        tx_id, refusal = node.offer(transaction_from_json(document).encode())
    except PoolFull as reason:
        raise ApiError(429, "PoolFull", str(reason)) from reason
    except ProtocolError as reason:
        raise ApiError(400, type(reason).__name__, str(reason)) from reason
    if refusal is not None and refusal.code != ACCEPTED:
        return tx_id, ApiError(409, refusal.code, refusal.reason)
    return tx_id, None


def _trace(document: object, tx_id: bytes, began_s: float, refusal: ApiError | None) -> None:
    """A span of the order that an authentic transaction is about."""
    body = transaction_from_json(document).body
    if isinstance(body, OrderTransaction):
        tracing.record(
            f"admit {type(body).__name__}",
            body.oid,
            began_s * 1000,
            tx="0x" + tx_id.hex(),
            code=ACCEPTED if refusal is None else refusal.code,
        )


def _transaction(node: Aggregator, tx_id: bytes, ordered: OrderedResult | None) -> Json:
    if ordered is None:
        return {"id": views.hexed(tx_id), "status": "waiting"}
    result, certificate = ordered.result, node.certificate(tx_id)
    return {
        "id": views.hexed(tx_id),
        "status": "accepted" if result.code == ACCEPTED else "refused",
        "code": result.code,
        "reason": result.reason,
        "sequence": ordered.sequence,
        "certificate": certificate_to_json(certificate) if certificate else None,
    }
