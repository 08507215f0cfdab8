"""Sending members their tokens: what the ledger paid for an order, and each transfer exactly once.

Guarantee: a member is sent its payout for an order at most once, whenever the leader's process is killed.
Before a transfer is sent the intention is on the disk, with the block after which it can be found; whoever
starts again looks on the chain for a transfer that was sent but not noted, and waits for one that is not
mined yet.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from offchain.committee import Committee
from offchain.network import Network
from protocol.chain.client import ChainClient
from protocol.errors import ProtocolError

log = logging.getLogger(__name__)


class NotPaid(ProtocolError):
    """There is nothing (yet) to pay out, or it cannot be told whether it was paid."""


def earned_wei(network: Network, committee: Committee | None, oid: str, leader: str) -> int:
    """What ``leader`` was credited as provider for a settled order: f + 1 aggregators say the same.

    Slashes are the leader's own and lower nobody's share.

    Raises:
        NotPaid: not settled, or nothing for this account. NotFound, NetworkError: nobody (agrees to) know it.
    """
    detail = network.agreed(
        f"/v1/orders/{oid}",
        lambda answer: (answer["receipts"], answer["settlement"] and answer["settlement"]["tx"]),
        committee,
    )
    if not detail["settlement"]:
        raise NotPaid(f"order {oid} is not settled yet: try again later, or name a --reward")
    credited = [
        int(receipt["amountWei"])
        for receipt in detail["receipts"]
        if receipt["account"] == leader and receipt["role"] == "provider" and int(receipt["amountWei"]) > 0
    ]
    if not credited:
        raise NotPaid(f"order {oid} paid the leader {leader} nothing: there is nothing to split")
    return sum(credited)


def payments_of(data_dir: Path) -> Path:
    """Where the record of a leader lies; all its orders are in it."""
    return data_dir / "pool" / "payments.jsonl"


@dataclass(frozen=True, slots=True)
class Payment:
    """A transfer that was sent, or was about to be."""

    oid: str
    account: str
    amount_wei: int
    after_block: int
    """The chain's head before it was sent."""
    tx: str | None
    """0x-hex; None until it is known to be mined."""


class Payments:
    """The leader's transfers to its members, and their record."""

    def __init__(self, path: Path, chain: ChainClient) -> None:
        self._path, self._chain = path, chain

    def of(self, oid: str, account: str) -> Payment | None:
        """The last word on a member's payout for an order."""
        last = None
        for payment in self._read():
            if (payment.oid, payment.account) == (oid, account):
                last = payment
        return last

    def pay(self, oid: str, account: str, amount_wei: int) -> Payment:
        """Send a member its payout, unless it was sent already: then that payment, whatever its amount.

        Raises:
            NotPaid: an earlier transfer may still be mined. ChainError: refused; nothing was sent, or it is
                found the next time.
        """
        before = self.of(oid, account)
        if before is not None and before.tx is None:
            before = self._find(before)
        if before is not None:
            return before
        intention = Payment(oid, account, amount_wei, self._chain.block_number(), None)
        self._write(intention)
        receipt = self._chain.transfer(bytes.fromhex(account[2:]), amount_wei)
        return self._paid(intention, "0x" + bytes(receipt["transactionHash"]).hex())

    def _find(self, intention: Payment) -> Payment | None:
        """The payment behind an intention that a kill or a timeout left open; None if it was never sent."""
        if self._chain.has_pending():
            raise NotPaid(
                "a transaction of this account waits to be mined and may be the payment to "
                f"{intention.account}: try again when it is mined"
            )
        known = {payment.tx for payment in self._read()}
        to = bytes.fromhex(intention.account[2:])
        for tx, amount_wei in self._chain.transfers_to(to, after_block=intention.after_block):
            if amount_wei == intention.amount_wei and tx not in known:
                log.info("found the payment to %s that was not noted: %s", intention.account, tx)
                return self._paid(intention, tx)
        return None

    def _paid(self, intention: Payment, tx: str) -> Payment:
        payment = Payment(intention.oid, intention.account, intention.amount_wei, intention.after_block, tx)
        self._write(payment)
        return payment

    def _write(self, payment: Payment) -> None:
        fields = {name: getattr(payment, name) for name in Payment.__slots__}
        fields["amount_wei"] = str(payment.amount_wei)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("ab") as file:
            file.write(b"\n" + json.dumps(fields).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def _read(self) -> Iterator[Payment]:
        try:
            lines = self._path.read_bytes().splitlines()
        except FileNotFoundError:
            return
        for line in lines:
            if not line.strip():
                continue
            try:
                fields: dict[str, Any] = json.loads(line)
                yield Payment(**fields | {"amount_wei": int(fields["amount_wei"])})
            except (ValueError, KeyError, TypeError):
                # Torn by a kill before anything was sent, or after: then the intention above it is open.
                log.warning("%s: a line that a kill tore is left out: %.40r", self._path, line)
