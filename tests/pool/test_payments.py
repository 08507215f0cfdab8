"""Members are paid what the ledger paid the leader, once each, wherever the leader is killed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from offchain.network import Network
from offchain.provider.pool.payments import NotPaid, Payments, earned_wei
from protocol.chain.client import ChainClient
from protocol.crypto import Key
from protocol.errors import ChainError
from tests.chain import Chain, chainless_network, running_chain
from tests.scripts.serving import serving

OID, OTHER = "0x" + "ab" * 32, "0x" + "cd" * 32
LEADER = "0x" + "aa" * 20


@pytest.fixture(scope="module")
def chain() -> Iterator[Chain]:
    with running_chain() as running:
        yield running


class Killed(BaseException):
    """The end of the leader's process."""


def test_a_payout_is_sent_once_wherever_the_leader_is_killed(
    chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = chain.fund(Key.generate(), 1_000)
    member = Key.generate().address
    account, path = "0x" + member.hex(), tmp_path / "pool" / "payments.jsonl"
    transfer = ChainClient.transfer

    def before(*_: Any) -> Any:
        raise Killed

    def after(*arguments: Any) -> Any:
        transfer(*arguments)
        raise Killed

    for dying, balance in ((before, 0), (after, 30)):
        monkeypatch.setattr(ChainClient, "transfer", dying)
        with pytest.raises(Killed):
            Payments(path, client).pay(OID, account, 30)
        assert client.balance_of(member) == balance
    # It starts again, and a third time; the torn line of the second life does not matter.
    monkeypatch.setattr(ChainClient, "transfer", transfer)
    with path.open("ab") as file:
        file.write(b'{"oid": "0x')
    found = Payments(path, client).pay(OID, account, 30)
    assert found.tx is not None and Payments(path, client).pay(OID, account, 999) == found
    assert client.balance_of(member) == 30
    # Another order with the same amount is another payment.
    other = Payments(path, client).pay(OTHER, account, 30)
    assert client.balance_of(member) == 60 and other.tx != found.tx


def test_a_refused_transfer_is_sent_when_there_are_tokens(chain: Chain, tmp_path: Path) -> None:
    key, member = Key.generate(), Key.generate().address
    payments = Payments(tmp_path / "payments.jsonl", chain.client(key))
    with pytest.raises(ChainError, match="holds 0 wei"):
        payments.pay(OID, "0x" + member.hex(), 5)
    chain.fund(key, 5)
    payments.pay(OID, "0x" + member.hex(), 5)
    assert chain.client(key).balance_of(member) == 5


def test_nothing_is_sent_while_an_earlier_transfer_may_still_be_mined(
    chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, member = chain.fund(Key.generate(), 10), Key.generate().address
    payments = Payments(tmp_path / "payments.jsonl", client)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(ChainClient, "transfer", lambda *_: (_ for _ in ()).throw(Killed()))
        payments.pay(OID, "0x" + member.hex(), 5)
    monkeypatch.setattr(ChainClient, "has_pending", lambda _: True)
    with pytest.raises(NotPaid, match="try again"):
        payments.pay(OID, "0x" + member.hex(), 5)
    assert client.balance_of(member) == 0


def receipt(amount_wei: int, account: str = LEADER, role: str = "provider") -> dict[str, str]:
    return {"account": account, "role": role, "amountWei": str(amount_wei)}


@pytest.mark.parametrize(
    ("receipts", "settled", "wanted"),
    [
        ([receipt(80), receipt(5), receipt(7, role="validator"), receipt(9, "0x" + "bb" * 20)], True, 85),
        ([receipt(80), receipt(-30)], True, 80),
        ([receipt(80)], False, "not settled"),
        ([receipt(-30)], True, "paid the leader"),
    ],
)
def test_the_reward_is_what_the_leader_was_credited_as_provider(
    receipts: list[dict[str, str]], settled: bool, wanted: int | str
) -> None:
    answer = {"receipts": receipts, "settlement": {"tx": "0x01"} if settled else None}
    with serving(lambda _: (200, json.dumps(answer).encode())) as url:
        network = Network(chainless_network(url))
        if isinstance(wanted, int):
            assert earned_wei(network, None, OID, LEADER) == wanted
        else:
            with pytest.raises(NotPaid, match=wanted):
                earned_wei(network, None, OID, LEADER)
        network.close()
