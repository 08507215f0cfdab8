"""A deployed network for the contract tests, and the orders, reports and signatures sent to it.

Guarantees: deployed by the package's own plan; credits proved by the package's own tree; signatures made
by the package's own keys: what these tests accept is what the network sends.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from ape import chain as ape_chain

from protocol import merkle
from protocol.chain.deployment import make_plan
from protocol.crypto import Key, sha256
from scripts.deploy import deploy

TOKEN = 10**18
PROVIDER, VALIDATOR, VERIFIER, AGGREGATOR = 1, 2, 3, 4


@dataclasses.dataclass(frozen=True)
class Network:
    """The contracts of one deployment."""

    token: Any
    parameters: Any
    registry: Any
    orders: Any
    committee: Any
    settlement: Any


def committee_keys(count: int) -> list[Key]:
    """Members' keys in the committee's order, which is by address."""
    return sorted((Key(sha256(b"member %d" % place)) for place in range(count)), key=lambda key: key.address)


def deploy_network(deployer: Any, treasury: Any, member_count: int) -> Network:
    """Deploy with the plan of the package and return the contracts."""
    plan = make_plan(
        owner=deployer.address,
        holder=deployer.address,
        treasury=treasury.address,
        members=[key.address for key in committee_keys(member_count)],
    )
    book = deploy(deployer, plan)
    at = ape_chain.contracts.instance_at
    names = [field.name for field in dataclasses.fields(Network)]
    return Network(**{name: at(getattr(book, name)) for name in names})


def make_order(client: Any, **changes: Any) -> dict[str, Any]:
    """An order that fits the default parameters: 100 tokens of reward, 5 of deposit."""
    order = {
        "client": client.address,
        "nonce": 1,
        "kind": "open",
        "reward": 100 * TOKEN,
        "deposit": 5 * TOKEN,
        "trainWindow": 60,
        "validateWindow": 30,
        "challengeWindow": 30,
        "taskHash": b"\x11" * 32,
        "taskLink": "http://127.0.0.1:1/task.json",
        "dataRoot": b"\x22" * 32,
        "baseline": -2_302_585,
    }
    assert set(changes) <= set(order)
    return order | changes


def make_report(network: Network, **parts: Any) -> dict[str, Any]:
    """The next report of the network, empty but for ``parts``."""
    report = {
        "epoch": network.settlement.lastEpoch() + 1,
        "committeeEpoch": network.committee.epoch(),
        "orders": b"",
        "slashes": b"",
        "releases": b"",
        "credits": b"",
    }
    assert set(parts) <= set(report)
    return report | parts


def pack_credits(entries: Iterable[tuple[Any, int]]) -> bytes:
    """Packed words, ascending by account."""
    return b"".join(account + amount.to_bytes(12, "big") for account, amount in _by_account(entries))


def pack_entry(account: Any, role: int, amount: int) -> bytes:
    """One slash or release."""
    return _raw(account) + amount.to_bytes(12, "big") + role.to_bytes(32, "big")


def proof_of(entries: Iterable[tuple[Any, int]], account: Any) -> list[bytes]:
    """Merkle proof of the account's credit, by the package's own tree."""
    ordered = _by_account(entries)
    leaves = [merkle.credit_leaf(each, amount) for each, amount in ordered]
    return merkle.proof(leaves, [each for each, _ in ordered].index(_raw(account)))


def sign(network: Network, report: dict[str, Any], keys: Iterable[Key]) -> bytes:
    """Signatures of ``keys`` over the report, in the order given."""
    digest = bytes(network.settlement.digestOf(report))
    return b"".join(key.sign(digest) for key in keys)


def settle(network: Network, sender: Any, members: list[Key], **parts: Any) -> Any:
    """Send the next report, signed by the first three of ``members``."""
    report = make_report(network, **parts)
    return network.settlement.update(report, 0b0111, sign(network, report, members[:3]), sender=sender)


def _by_account(entries: Iterable[tuple[Any, int]]) -> list[tuple[bytes, int]]:
    return sorted((_raw(account), amount) for account, amount in entries)


def _raw(account: Any) -> bytes:
    return account if isinstance(account, bytes) else bytes.fromhex(account.address[2:])
