"""HTTP routes under ``/v1``: thin handlers over the read model, one error shape.

Errors are ``{"error": {"code", "reason"}}``: 400 for what cannot be read, 404 for what is not there, 409 for
what the ledger refuses, 429 and 503 for what may be tried again. Bodies above `MAX_BODY_BYTES` are refused
before they are read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Final

import msgspec
from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException
from starlette.middleware.base import RequestResponseEndpoint

from aggregator.api import views
from aggregator.ledger.root import MAPS
from aggregator.ledger.tasks.open_records import OpenTask
from aggregator.ledger.transition import ACCEPTED
from aggregator.member.execution import OrderedResult
from aggregator.member.mempool import PoolFull
from aggregator.member.pooling import Submitted
from aggregator.node import Aggregator, now_ms
from aggregator.pbft.messages import MAX_FORWARDED
from protocol.certificate import certificate_to_json
from protocol.errors import ProtocolError
from protocol.state_proof import HEAD, state_proof_to_json
from protocol.transactions import MAX_TRANSACTION_BYTES, transaction_from_json

MAX_BODY_BYTES: Final = 4 * MAX_TRANSACTION_BYTES
MAX_BATCH_BODY_BYTES: Final = 1024 * 1024
MAX_LISTED: Final = 500
MAX_WAIT_S: Final = 60.0

Json = dict[str, Any]
_BATCH_DECODER: Final = msgspec.msgpack.Decoder(list[bytes])


class ApiError(Exception):
    """A refusal with an HTTP status, a stable code and a reason for people."""

    def __init__(self, status: int, code: str, reason: str) -> None:
        super().__init__(reason)
        self.status, self.code, self.reason = status, code, reason


def _parse(text: str, size: int, what: str) -> bytes:
    try:
        value = bytes.fromhex(text.removeprefix("0x"))
    except ValueError:
        value = b""
    if len(value) != size:
        raise ApiError(400, "BadRequest", f"{what} is {size} bytes in hex, not {text[:80]!r}")
    return value


Alarms = Callable[[], list[str]]
"""What an operator should look at; empty in good times."""


def build_app(node: Aggregator, alarms: Alarms) -> FastAPI:
    """The API of one aggregator."""
    app = FastAPI(title="DTN aggregator", version="1", docs_url="/docs", redoc_url=None)
    _one_error_shape(app)
    _members_only(app, node)
    _standing(app, node, alarms)
    _orders(app, node)
    _accounts(app, node)
    _transactions(app, node)
    _proofs(app, node)
    return app


def _members_only(app: FastAPI, node: Aggregator) -> None:
    @app.middleware("http")
    async def answer(request: Request, call_next: RequestResponseEndpoint) -> Response:
        """Whoever is no member may be far behind, cut off from the others: let another one be asked."""
        path = request.url.path
        if path.startswith("/v1/") and path != "/v1/status" and node.index is None:
            return _error(503, "NoMember", "this aggregator is not in the committee now; ask another")
        return await call_next(request)


def _one_error_shape(app: FastAPI) -> None:
    @app.exception_handler(ApiError)
    async def _refused(_: Request, error: ApiError) -> JSONResponse:
        return _error(error.status, error.code, error.reason)

    @app.exception_handler(RequestValidationError)
    async def _invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        return _error(400, "BadRequest", f"{'.'.join(map(str, first['loc']))}: {first['msg']}")

    @app.exception_handler(HTTPException)
    async def _http(_: Request, error: HTTPException) -> JSONResponse:
        return _error(
            error.status_code, "NotFound" if error.status_code == 404 else "Http", str(error.detail)
        )


def _standing(app: FastAPI, node: Aggregator, alarms: Alarms) -> None:
    @app.get("/v1/status")
    async def status() -> Json:
        """Where this aggregator stands."""
        state, replica = node.state, node.replica
        return {
            "network": {
                "chainId": node.members.domain.chain_id,
                "parameters": views.hexed(node.members.domain.verifying_contract),
                "treasury": views.hexed(state.treasury),
            },
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
            "waiting": len(node.mempool),
            "orders": len(state.table),
            "settledEpoch": state.settled_epoch,
            "alarms": alarms(),
        }

    @app.get("/v1/parameters")
    async def parameters() -> Json:
        """Protocol parameters in force."""
        return {name: str(value) for name, value in node.state.parameters.values}

    @app.get("/healthz")
    async def health() -> Response:
        """200 while this member takes part, 503 while it does not."""
        raised = alarms()
        ready = node.replica.active and not raised
        return PlainTextResponse(
            "ok" if ready else "; ".join(raised) or "changing view", 200 if ready else 503
        )


def _orders(app: FastAPI, node: Aggregator) -> None:
    @app.get("/v1/orders")
    async def orders(
        phase: str | None = None,
        client: str | None = None,
        limit: Annotated[int, Query(ge=1, le=MAX_LISTED)] = 100,
    ) -> Json:
        """FetchOrders (PoT 3.3.2): best reward per second of training first; settled ones last."""
        wanted = _parse(client, 20, "a client") if client else None
        running = sorted(node.state.table.values(), key=lambda e: (-views.reward_rate(e), e.oid))
        listed = [views.order_summary(entry) for entry in running]
        listed += [views.order_summary(e, epoch) for e, epoch in reversed(node.archive.entries.values())]
        if phase is not None:
            listed = [item for item in listed if item["phase"] == phase]
        if wanted is not None:
            listed = [item for item in listed if item["client"] == views.hexed(wanted)]
        return {"orders": listed[:limit]}

    @app.get("/v1/orders/{oid}")
    async def order(oid: str) -> Json:
        """One order with its phases, claims, validations, challenges and receipts."""
        found = views.find_order(node.state, node.archive, _parse(oid, 32, "an OID"))
        if found is None:
            raise ApiError(
                404, "UnknownOrder", f"no order {oid} is known here; it may take a few seconds to arrive"
            )
        return views.order_detail(*found)

    @app.get("/v1/orders/{oid}/validations")
    async def validations(oid: str) -> Json:
        """FetchValidations (PoT 3.3.3)."""
        found = views.find_order(node.state, node.archive, _parse(oid, 32, "an OID"))
        if found is None or not isinstance(found[0].task, OpenTask):
            raise ApiError(404, "UnknownOrder", f"no order {oid} with validations is known here")
        return {"validations": views.validations_json(found[0].task)}

    @app.get("/v1/orders/{oid}/model")
    async def model(oid: str) -> Json:
        """Get (PoT 3.3.1): the winning model's id, size and links."""
        found = views.find_order(node.state, node.archive, _parse(oid, 32, "an OID"))
        if found is None:
            raise ApiError(404, "UnknownOrder", f"no order {oid} is known here")
        entry, settlement = found
        if entry.outcome is None:
            raise ApiError(
                409, "NotSealed", f"the order is in phase {views.phase_of(entry)!r}; no winner yet"
            )
        if entry.outcome.winner is None:
            raise ApiError(409, "NoWinner", f"the order ended without a winner: {entry.outcome.reason}")
        claim = entry.task.claims[entry.outcome.winner]
        return {
            "oid": views.hexed(entry.oid),
            "mid": views.hexed(entry.outcome.mid),
            "winner": views.hexed(entry.outcome.winner),
            "score": str(entry.outcome.score),
            "sizeBytes": claim.size_bytes,
            "links": list(claim.links),
            "settlement": views.settlement_json(settlement) if settlement else None,
        }


def _accounts(app: FastAPI, node: Aggregator) -> None:
    @app.get("/v1/accounts/{account}")
    async def account_of(account: str) -> Json:
        """Stakes, receipts and claimable credits of an account."""
        return views.account_json(node.state, node.archive, _parse(account, 20, "an account"))

    @app.get("/v1/nodes")
    async def nodes() -> Json:
        """All registered nodes."""
        return {"nodes": views.nodes_json(node.state)}

    @app.get("/v1/settlements")
    async def settlements(limit: Annotated[int, Query(ge=1, le=MAX_LISTED)] = 100) -> Json:
        """Settlements, latest first."""
        latest = list(reversed(node.archive.settlements.values()))[:limit]
        return {"settlements": [views.settlement_json(item) for item in latest]}


def _transactions(app: FastAPI, node: Aggregator) -> None:
    @app.post("/v1/transactions", status_code=202)
    async def submit(
        request: Request, wait_s: Annotated[float, Query(ge=0, le=MAX_WAIT_S)] = 0.0
    ) -> JSONResponse:
        """Send a signed transaction; with ``wait_s`` the answer says what became of it."""
        tx_id, refusal = _admit(node, await _body(request))
        if refusal is not None:
            raise refusal
        ordered = await node.outcome(tx_id, wait_s) if wait_s else node.results.get(tx_id)
        answer = _transaction(node, tx_id, ordered)
        if ordered is not None and ordered.result.code != ACCEPTED:
            raise ApiError(409, ordered.result.code, ordered.result.reason)
        return JSONResponse(answer, status_code=200 if ordered else 202)

    @app.post("/v1/transactions/batch", status_code=202)
    async def submit_batch(request: Request) -> Json:
        """Send many signed transactions; the answers stand in the same order, each with its own outcome."""
        items = await _batch(request)
        return {"transactions": [_submitted(node, item) for item in node.offer_all(items)]}

    @app.get("/v1/transactions/{tx_id}")
    async def transaction(tx_id: str) -> Json:
        """What became of a transaction."""
        wanted = _parse(tx_id, 32, "a transaction id")
        ordered = node.results.get(wanted)
        if ordered is None and wanted not in node.mempool:
            raise ApiError(404, "UnknownTransaction", f"no transaction {tx_id} is known here")
        return _transaction(node, wanted, ordered)


def _proofs(app: FastAPI, node: Aggregator) -> None:
    @app.get("/v1/proofs/head")
    async def head() -> Json:
        """Proof of where the ledger stood at the last stable checkpoint."""
        return _proof(node, HEAD, b"")

    @app.get("/v1/proofs/{section}/{key}")
    async def proof(section: str, key: str) -> Json:
        """Proof of one row of the ledger; there are none of absence."""
        if section not in MAPS:
            raise ApiError(404, "UnknownSection", f"the ledger's sections are {', '.join(MAPS)} and {HEAD}")
        return _proof(node, section, _parse(key, 20 if section in ("nodes", "nonces") else 32, "the key"))

    @app.get("/v1/orders/{oid}/receipts")
    async def receipts(oid: str) -> Json:
        """A settled order's receipts with the proof of their root."""
        wanted = _parse(oid, 32, "an OID")
        found = node.archive.entries.get(wanted)
        if found is None or found[0].outcome is None:
            raise ApiError(
                404, "UnknownOrder", f"no settled order {oid} is known here; prove its row in table instead"
            )
        proved = _proof(node, "receipt_roots", wanted)
        return {"receipts": [views.receipt_json(item) for item in found[0].outcome.receipts], "proof": proved}


def _proof(node: Aggregator, section: str, key: bytes) -> Json:
    proof = node.proof(section, key)
    if proof is None:
        raise ApiError(
            404,
            "NotCheckpointed",
            f"{section} had no such row at the last stable checkpoint, sequence {node.replica.low}; "
            "what is younger can be proved after the next one",
        )
    return state_proof_to_json(proof)


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


def _error(status: int, code: str, reason: str) -> JSONResponse:
    return JSONResponse({"error": {"code": code, "reason": reason}}, status_code=status)


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
