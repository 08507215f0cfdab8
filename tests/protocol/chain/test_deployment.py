"""The plan is a pure function of its arguments; the web3 executor runs it on a real chain."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from eth_account import Account
from web3 import Web3

from dtn.devnet.anvil import running_anvil
from protocol.chain.artifacts import load
from protocol.chain.deployment import (
    AddressBook,
    Call,
    Creation,
    Governance,
    Plan,
    Reading,
    Reference,
    deploy,
    make_plan,
    parameter_key,
    settlement_threshold,
)
from protocol.crypto import Key, sha256
from protocol.errors import ChainError

DEPLOYER = Account.from_key("0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80")
MEMBERS = [Key(sha256(b"member %d" % place)).address for place in range(4)]
TREASURY = Key(sha256(b"treasury")).address


def plan_of(**changes: object) -> Plan:
    arguments = {
        "owner": DEPLOYER.address,
        "holder": DEPLOYER.address,
        "treasury": TREASURY,
        "members": MEMBERS,
    }
    return make_plan(**(arguments | changes))  # type: ignore[arg-type]


def test_members_are_sorted_and_the_quorum_follows_from_their_number() -> None:
    (committee,) = (
        step for step in plan_of().steps if isinstance(step, Creation) and step.name == "committee"
    )
    _, members, threshold = committee.arguments
    assert [str(member).lower() for member in members] == sorted(f"0x{each.hex()}" for each in MEMBERS)
    assert threshold == 3


@pytest.mark.parametrize("governed", [False, True])
def test_every_reference_is_to_an_earlier_step(governed: bool) -> None:
    plan = plan_of(owner=None, governance=Governance()) if governed else plan_of()
    known: set[str] = set()
    for step in plan.steps:
        arguments = () if isinstance(step, Reading) else step.arguments
        wanted = {each.name for each in arguments if isinstance(each, Reference)}
        assert wanted <= known
        if not isinstance(step, Creation):
            assert step.target in known
        if not isinstance(step, Call):
            known.add(step.name)
    assert ("timelock" in known) == governed


@pytest.mark.parametrize(
    "changes",
    [
        {"members": []},
        {"threshold": 2},
        {"threshold": 5},
        {"overrides": {"no_such_parameter": 1}},
        {"overrides": {"accuser_bps": 5001}},
        {"treasury": "0x12"},
        {"owner": None},
        {"governance": Governance()},
        {"owner": None, "governance": Governance(voting_delay_s=0)},
        {"owner": None, "governance": Governance(quorum_percent=101)},
    ],
)
def test_a_crooked_plan_is_refused_before_anything_is_sent(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        plan_of(**changes)


def test_an_address_book_survives_its_file_and_a_damaged_file_is_named(tmp_path: Path) -> None:
    book = AddressBook(
        chain_id=1,
        block=2,
        parameters="a",
        token="b",
        registry="c",
        orders="d",
        committee="e",
        settlement="f",
        treasury="g",
    )
    book.write(tmp_path / "deep" / "book.json")
    assert AddressBook.read(tmp_path / "deep" / "book.json") == book
    with pytest.raises(ChainError, match="no address book"):
        AddressBook.read(tmp_path / "missing.json")
    (tmp_path / "bad.json").write_text('{"chain_id": 1}', encoding="utf-8")
    with pytest.raises(ChainError, match="not an address book"):
        AddressBook.read(tmp_path / "bad.json")


@pytest.fixture(scope="module")
def chain() -> Iterator[Web3]:
    """A fresh Anvil."""
    with running_anvil() as (web3, _):
        yield web3


def test_the_contracts_know_each_other_after_deployment(chain: Web3) -> None:
    book = deploy(chain, DEPLOYER, plan_of(overrides={"update_s": 5}))
    assert book.chain_id == chain.eth.chain_id and book.block >= 1

    def call(name: str, contract: str, method: str, *arguments: object) -> object:
        instance = chain.eth.contract(address=getattr(book, name), abi=load(contract).abi)
        return instance.functions[method](*arguments).call()

    for store, contract in (("registry", "NodeRegistry"), ("orders", "OrderBook")):
        assert call(store, contract, "settlement") == book.settlement
        assert call(store, contract, "token") == book.token
        assert call(store, contract, "parameters") == book.parameters
    for name in ("token", "registry", "orders", "committee", "treasury"):
        assert call("settlement", "Settlement", name) == getattr(book, name)
    assert call("parameters", "Parameters", "get", parameter_key("update_s")) == 5
    assert call("committee", "Committee", "threshold") == 3


def test_a_deployer_without_funds_is_told_so(chain: Web3) -> None:
    poor = Account.from_key(sha256(b"poor"))
    with pytest.raises(ChainError, match="deployment of token failed"):
        deploy(chain, poor, plan_of())


@pytest.mark.parametrize(
    ("members", "least", "usual"), [(1, 1, 1), (3, 2, 3), (4, 3, 3), (7, 4, 5), (30, 16, 21)]
)
def test_a_threshold_is_more_than_half_and_by_default_all_but_a_third(
    members: int, least: int, usual: int
) -> None:
    assert settlement_threshold(members) == usual
    for right in range(least, members + 1):
        assert settlement_threshold(members, right) == right
    for wrong in (least - 1, members + 1):
        with pytest.raises(ValueError, match="need a threshold"):
            settlement_threshold(members, wrong)
