"""Routes that show the ledger: orders, accounts, nodes, settlements, and proofs of its rows.

Every list comes in pages with an opaque cursor; every answer carries the entity tag of the ledger's sequence
number (`aggregator.api.reading`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Annotated, Any, Final

from fastapi import FastAPI, Path, Query, Request
from fastapi.responses import Response

from aggregator.api import schema, views
from aggregator.api.errors import ApiError
from aggregator.api.listing import Listing
from aggregator.api.reading import MAX_CURSOR_CHARS, Cursor, Reader, page
from aggregator.ledger.root import MAPS
from aggregator.ledger.state import Entry, Node, Settlement
from aggregator.ledger.tasks.open_records import OpenTask
from aggregator.node import Aggregator
from protocol.roles import Role
from protocol.state_proof import HEAD, state_proof_to_json

MAX_LISTED: Final = 500
MAX_CREDITS: Final = 32
"""Credits on one page: each proof hashes all credits of its epoch."""
MAX_FILTER_CHARS: Final = 64

Json = dict[str, Any]
Oid = Annotated[str, Path(pattern="^(0x)?[0-9a-fA-F]{64}$", description="an OID: 32 bytes in hex")]
TxId = Annotated[str, Path(pattern="^(0x)?[0-9a-fA-F]{64}$", description="32 bytes in hex")]
Account = Annotated[str, Path(pattern="^(0x)?[0-9a-fA-F]{40}$", description="an address: 20 bytes in hex")]
AccountFilter = Annotated[
    str | None, Query(pattern="^(0x)?[0-9a-fA-F]{40}$", description="an address: 20 bytes in hex")
]
WordFilter = Annotated[str | None, Query(max_length=MAX_FILTER_CHARS)]
Limit = Annotated[int, Query(ge=1, le=MAX_LISTED)]
CursorText = Annotated[
    str | None, Query(max_length=MAX_CURSOR_CHARS, description="`next` of the page before")
]

ORDERS: Final = Cursor("orders", int, int, str)
NODES: Final = Cursor("nodes", str)
SETTLEMENTS: Final = Cursor("settlements", int)
RECEIPTS: Final = Cursor("receipts", int, str, int)
CREDITS: Final = Cursor("credits", int)


def parsed(text: str) -> bytes:
    """Bytes of hex that its route's pattern has checked."""
    return bytes.fromhex(text.removeprefix("0x"))


def add_reads(app: FastAPI, node: Aggregator) -> None:
    """Add the routes that show the ledger."""
    reader, listing = Reader("executed-"), Listing(node)
    _orders(app, node, reader, listing)
    _accounts(app, node, reader, listing)
    _nodes(app, node, reader, listing)
    _settlements(app, node, reader, listing)
    _proofs(app, node, Reader("stable-"))


def _orders(app: FastAPI, node: Aggregator, reader: Reader, listing: Listing) -> None:
    def answer(request: Request, build: Callable[[], Json]) -> Response:
        return reader.answer(request, node.state.sequence, build)

    @app.get("/v1/parameters", response_model=dict[str, schema.Whole])
    async def parameters(request: Request) -> Response:
        """Protocol parameters in force."""
        return answer(request, lambda: {name: str(value) for name, value in node.state.parameters.values})

    @app.get("/v1/orders", response_model=schema.Orders)
    async def orders(
        request: Request,
        phase: WordFilter = None,
        kind: WordFilter = None,
        client: AccountFilter = None,
        winner: AccountFilter = None,
        limit: Limit = 100,
        cursor: CursorText = None,
    ) -> Response:
        """FetchOrders (PoT 3.3.2): best reward per second of training first; settled ones last."""
        wanted_client = parsed(client) if client else None
        wanted_winner = parsed(winner) if winner else None

        def wanted(row: tuple[Entry, int | None]) -> bool:
            entry, epoch = row
            if phase is not None and phase != ("settled" if epoch is not None else views.phase_of(entry)):
                return False
            if kind is not None and kind != entry.order.kind:
                return False
            if wanted_winner is not None and (entry.outcome is None or entry.outcome.winner != wanted_winner):
                return False
            return wanted_client is None or entry.order.client == wanted_client

        after = ORDERS.decode(cursor) if cursor else None
        # The settled ones are a stretch of the list of their own: not to be looked for among the others.
        if phase == "settled" and (after is None or after[0] == 0):
            after = (1, -(1 << 62), "")
        sequence, rows = listing.orders(after)

        def build() -> Json:
            found = page(rows, ORDERS, limit, wanted)
            return {
                "orders": [views.order_summary(entry, epoch) for entry, epoch in found.rows],
                "next": found.next,
            }

        return reader.answer(request, sequence, build)

    def found_order(oid: str) -> tuple[Entry, Settlement | None]:
        found = views.find_order(node.state, node.archive, parsed(oid))
        if found is None:
            raise ApiError(
                404, "UnknownOrder", f"no order {oid} is known here; it may take a few seconds to arrive"
            )
        return found

    @app.get("/v1/orders/{oid}", response_model=schema.OrderDetail)
    async def order(request: Request, oid: Oid) -> Response:
        """One order with its phases, claims, validations, challenges and receipts."""
        return answer(request, lambda: views.order_detail(*found_order(oid)))

    @app.get("/v1/orders/{oid}/validations", response_model=schema.Validations)
    async def validations(request: Request, oid: Oid) -> Response:
        """FetchValidations (PoT 3.3.3)."""
        entry, _ = found_order(oid)
        task = entry.task
        if not isinstance(task, OpenTask):
            raise ApiError(404, "UnknownOrder", f"no order {oid} with validations is known here")
        return answer(request, lambda: {"validations": views.validations_json(task)})

    @app.get("/v1/orders/{oid}/model", response_model=schema.Model)
    async def model(request: Request, oid: Oid) -> Response:
        """Get (PoT 3.3.1): the winning model's id, size and links."""
        entry, settlement = found_order(oid)
        if entry.outcome is None:
            raise ApiError(
                409, "NotSealed", f"the order is in phase {views.phase_of(entry)!r}; no winner yet"
            )
        if entry.outcome.winner is None:
            raise ApiError(409, "NoWinner", f"the order ended without a winner: {entry.outcome.reason}")
        return answer(request, lambda: views.model_json(entry, settlement))


def _receipts_page(
    node: Aggregator, account: bytes, limit: int, cursor: str | None, wanted: Any = None
) -> Json:
    before = None
    if cursor:
        epoch, source, number = RECEIPTS.decode(cursor)
        try:
            before = (-int(epoch), bytes.fromhex(str(source)), int(number))
        except ValueError as reason:
            raise ApiError(400, "BadCursor", "give back what `next` of a page said") from reason
    rows = (
        ((-epoch, source.hex(), number), (receipt, settlement))
        for (epoch, source, number), receipt, settlement in node.archive.receipts_of(account, before)
    )
    found = page(rows, RECEIPTS, limit, wanted)
    return {"receipts": [views.paid_receipt_json(*row) for row in found.rows], "next": found.next}


def _credits_page(node: Aggregator, account: bytes, limit: int, cursor: str | None) -> Json:
    after = int(CREDITS.decode(cursor)[0]) if cursor else 0
    taken = list(itertools.islice(node.archive.credits_of(account, after), limit + 1))
    found = page((((epoch,), (epoch, *rest)) for epoch, *rest in taken), CREDITS, limit)
    return {"credits": [views.credit_json(*row) for row in found.rows], "next": found.next}


def _accounts(app: FastAPI, node: Aggregator, reader: Reader, listing: Listing) -> None:
    @app.get("/v1/accounts/{account}", response_model=schema.Account)
    async def account_of(request: Request, account: Account) -> Response:
        """Stakes, pending receipts, the latest settled receipts and the first claimable credits."""
        who = parsed(account)
        sequence, pending = listing.pending(who)

        def build() -> Json:
            receipts = _receipts_page(node, who, MAX_LISTED, None)
            credits_ = _credits_page(node, who, MAX_CREDITS, None)
            return {
                "account": views.hexed(who),
                "nextNonce": str(node.state.nonces.get(who, -1) + 1),
                "stakes": views.stakes_json(node.state.nodes.get(who, Node())),
                "pending": [views.receipt_json(receipt) for receipt in pending],
                "receipts": receipts["receipts"],
                "receiptsNext": receipts["next"],
                "credits": credits_["credits"],
                "creditsNext": credits_["next"],
            }

        return reader.answer(request, sequence, build)

    @app.get("/v1/accounts/{account}/receipts", response_model=schema.Receipts)
    async def receipts_of(
        request: Request,
        account: Account,
        role: WordFilter = None,
        limit: Limit = 100,
        cursor: CursorText = None,
    ) -> Response:
        """Settled receipts of an account, latest first, with the settlement that paid each."""

        def wanted(row: tuple[Any, Settlement]) -> bool:
            return role is None or row[0].role == role

        def build() -> Json:
            return _receipts_page(node, parsed(account), limit, cursor, wanted)

        return reader.answer(request, node.state.sequence, build)

    @app.get("/v1/accounts/{account}/credits", response_model=schema.Credits)
    async def credits_of(
        request: Request,
        account: Account,
        limit: Annotated[int, Query(ge=1, le=MAX_CREDITS)] = MAX_CREDITS,
        cursor: CursorText = None,
    ) -> Response:
        """Credits with the proofs that ``Settlement.claim`` needs, oldest first."""
        return reader.answer(
            request, node.state.sequence, lambda: _credits_page(node, parsed(account), limit, cursor)
        )


def _nodes(app: FastAPI, node: Aggregator, reader: Reader, listing: Listing) -> None:
    @app.get("/v1/nodes", response_model=schema.Nodes)
    async def nodes(
        request: Request, role: WordFilter = None, limit: Limit = MAX_LISTED, cursor: CursorText = None
    ) -> Response:
        """Registered nodes by account."""

        def wanted(account: bytes) -> bool:
            stakes = node.state.nodes.get(account, Node()).stakes
            return role is None or any(Role(name).name.lower() == role for name, _ in stakes)

        sequence, rows = listing.nodes(NODES.decode(cursor) if cursor else None)

        def build() -> Json:
            found = page(rows, NODES, limit, wanted)
            return {"nodes": [views.node_json(node.state, who) for who in found.rows], "next": found.next}

        return reader.answer(request, sequence, build)


def _settlements(app: FastAPI, node: Aggregator, reader: Reader, listing: Listing) -> None:
    @app.get("/v1/settlements", response_model=schema.Settlements)
    async def settlements(request: Request, limit: Limit = 100, cursor: CursorText = None) -> Response:
        """Settlements, latest first."""
        after = SETTLEMENTS.decode(cursor) if cursor else None

        def build() -> Json:
            found = page(listing.settlements(after), SETTLEMENTS, limit)
            return {
                "settlements": [views.settlement_json(item) for item in found.rows],
                "next": found.next,
            }

        return reader.answer(request, node.state.sequence, build)


def _proofs(app: FastAPI, node: Aggregator, reader: Reader) -> None:
    def proved(section: str, key: bytes) -> Json:
        proof = node.proof(section, key)
        if proof is None:
            raise ApiError(
                404,
                "NotCheckpointed",
                f"{section} had no such row at the last stable checkpoint, sequence {node.replica.low}; "
                "what is younger can be proved after the next one",
            )
        return state_proof_to_json(proof)

    def answer(request: Request, build: Callable[[], Json]) -> Response:
        return reader.answer(request, node.replica.low, build)

    @app.get("/v1/proofs/head", response_model=schema.StateProof)
    async def head(request: Request) -> Response:
        """Proof of where the ledger stood at the last stable checkpoint."""
        return answer(request, lambda: proved(HEAD, b""))

    @app.get("/v1/proofs/{section}/{key}", response_model=schema.StateProof)
    async def proof(
        request: Request,
        section: str,
        key: Annotated[str, Path(pattern="^(0x)?([0-9a-fA-F]{40}|[0-9a-fA-F]{64})$")],
    ) -> Response:
        """Proof of one row of the ledger; there are none of absence."""
        if section not in MAPS:
            raise ApiError(404, "UnknownSection", f"the ledger's sections are {', '.join(MAPS)} and {HEAD}")
        size = 20 if section in ("nodes", "nonces") else 32
        if len(parsed(key)) != size:
            raise ApiError(400, "BadRequest", f"a key of {section} is {size} bytes in hex, not {key!r}")
        return answer(request, lambda: proved(section, parsed(key)))

    @app.get("/v1/orders/{oid}/receipts", response_model=schema.ProvedReceipts)
    async def receipts(request: Request, oid: Oid) -> Response:
        """A settled order's receipts with the proof of their root."""
        found = node.archive.entries.get(parsed(oid))
        if found is None or found[0].outcome is None:
            raise ApiError(
                404, "UnknownOrder", f"no settled order {oid} is known here; prove its row in table instead"
            )
        shown = [views.receipt_json(item) for item in found[0].outcome.receipts]
        return answer(request, lambda: {"receipts": shown, "proof": proved("receipt_roots", parsed(oid))})
