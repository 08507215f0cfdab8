"""Contract logs, read from this node's own chain node and decoded into chain events.

Guarantees: `read` is a function of the chain alone: events of the six contracts in block and log order, so
that honest members with honest chain nodes derive the same bytes. Blocking; called from a worker thread.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from web3 import Web3
from web3.types import FilterParams, LogReceipt

from protocol.chain.client import ChainClient, block_ranges, chain_errors
from protocol.chain_events import (
    AnyChainEvent,
    CommitteeChanged,
    EndpointChanged,
    OrderPlaced,
    OrderReclaimed,
    ParameterChanged,
    Settled,
    Staked,
    UnstakeRequested,
)
from protocol.transactions import Order

logger = logging.getLogger(__name__)


def _address(value: str) -> bytes:
    return bytes.fromhex(value[2:])


class ChainReader:
    """Reads heads and events of one network's contracts."""

    def __init__(self, chain: ChainClient) -> None:
        self._chain = chain
        self._web3: Web3 = chain.web3
        self._decoders: dict[bytes, tuple[Any, Callable[[Any, LogReceipt], AnyChainEvent]]] = {}
        self._add(chain.orders.events.OrderPlaced(), _order_placed)
        self._add(chain.orders.events.OrderReclaimed(), lambda a, _: OrderReclaimed(oid=bytes(a["oid"])))
        self._add(chain.registry.events.Staked(), _staked)
        self._add(chain.registry.events.EndpointChanged(), _endpoint_changed)
        self._add(chain.registry.events.UnstakeRequested(), _unstake_requested)
        self._add(chain.committee.events.CommitteeChanged(), _committee_changed)
        self._add(chain.parameters.events.ParameterChanged(), _parameter_changed)
        self._add(chain.settlement.events.Settled(), self._settled)
        self._addresses = [
            contract.address
            for contract in (
                chain.orders,
                chain.registry,
                chain.committee,
                chain.parameters,
                chain.settlement,
            )
        ]

    def _add(self, event: Any, build: Callable[[Any, LogReceipt], AnyChainEvent]) -> None:
        self._decoders[bytes(Web3.keccak(text=event.signature))] = (event, build)

    @property
    def first_block(self) -> int:
        """The block of the deployment: nothing of interest lies before it."""
        return self._chain.book.block

    def head(self) -> int:
        """Number of the chain's latest block."""
        with chain_errors("cannot read the chain's head"):
            return int(self._web3.eth.block_number)

    def block_hash(self, number: int) -> bytes:
        """Hash of the block ``number``."""
        with chain_errors(f"cannot read block {number}"):
            return bytes(self._web3.eth.get_block(number)["hash"])

    def read(self, after: int, number: int) -> tuple[tuple[int, AnyChainEvent], ...]:
        """Events in blocks ``(after, number]`` with their block numbers, in chain order."""
        found: list[tuple[int, AnyChainEvent]] = []
        for start, stop in block_ranges(max(after + 1, self.first_block), number):
            query: FilterParams = {"fromBlock": start, "toBlock": stop, "address": self._addresses}
            with chain_errors(f"cannot read the contract events of blocks {start} to {stop}"):
                logs = self._web3.eth.get_logs(query)
                for log in sorted(logs, key=lambda item: (item["blockNumber"], item["logIndex"])):
                    event = self._decode(log)
                    if event is not None:
                        found.append((log["blockNumber"], event))
        return tuple(found)

    def _decode(self, log: LogReceipt) -> AnyChainEvent | None:
        decoder = self._decoders.get(bytes(log["topics"][0]))
        if decoder is None:
            return None
        event, build = decoder
        try:
            args = event.process_log(log)["args"]
        except UnicodeDecodeError:
            # The contracts take any bytes for text. All members skip such an event alike; an order with it
            # is served by nobody, and its client reclaims the escrow.
            logger.warning("skipped an event whose text is not UTF-8 in block %d", log["blockNumber"])
            return None
        return build(args, log)

    def _settled(self, args: Any, log: LogReceipt) -> Settled:
        receipt = self._web3.eth.get_transaction_receipt(log["transactionHash"])
        return Settled(
            epoch=args["epoch"],
            root=bytes(args["root"]),
            transaction_hash=bytes(log["transactionHash"]),
            gas_used=receipt["gasUsed"],
        )


def _order_placed(args: Any, log: LogReceipt) -> OrderPlaced:
    fields = args["order"]
    order = Order(
        client=_address(fields["client"]),
        nonce=fields["nonce"],
        kind=fields["kind"],
        reward=fields["reward"],
        deposit=fields["deposit"],
        train_window=fields["trainWindow"],
        validate_window=fields["validateWindow"],
        challenge_window=fields["challengeWindow"],
        task_hash=bytes(fields["taskHash"]),
        task_link=fields["taskLink"],
        data_root=bytes(fields["dataRoot"]),
        baseline=fields["baseline"],
    )
    return OrderPlaced(oid=bytes(args["oid"]), order=order, block_hash=bytes(log["blockHash"]))


def _staked(args: Any, _: LogReceipt) -> Staked:
    return Staked(
        account=_address(args["account"]), role=args["role"], amount=args["amount"], bonded=args["bonded"]
    )


def _endpoint_changed(args: Any, _: LogReceipt) -> EndpointChanged:
    return EndpointChanged(
        account=_address(args["account"]), endpoint=args["endpoint"], link_key=bytes(args["linkKey"])
    )


def _unstake_requested(args: Any, _: LogReceipt) -> UnstakeRequested:
    return UnstakeRequested(account=_address(args["account"]), role=args["role"], amount=args["amount"])


def _committee_changed(args: Any, _: LogReceipt) -> CommitteeChanged:
    members = tuple(_address(member) for member in args["members"])
    return CommitteeChanged(epoch=args["epoch"], members=members, threshold=args["threshold"])


def _parameter_changed(args: Any, _: LogReceipt) -> ParameterChanged:
    key = bytes(args["key"]).rstrip(b"\0").decode("ascii", "replace")
    return ParameterChanged(key=key, value=args["value"])
