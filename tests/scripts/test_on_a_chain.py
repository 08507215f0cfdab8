"""The wallet scripts against the real contracts: what is placed, what is refused, who is asked."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from eth_utils.address import to_checksum_address

from offchain.storage import EmbeddedStore, Gateway, link_to
from protocol.crypto import Key
from protocol.keyfile import write_private
from protocol.parameters import TOKEN_WEI
from protocol.roles import Role
from protocol.transactions import data_root
from tests.chain import Chain, running_chain
from tests.scripts.loading import load_script
from tests.scripts.serving import serving
from tests.scripts.test_get import OID, answer_for, refusing, saying
from tests.scripts.test_put import a_document

put, get = load_script("put"), load_script("get")
MEMBERS = [Key((index + 1).to_bytes(32, "big")) for index in range(4)]
DOCUMENT = a_document()

Run = Callable[..., int]


@pytest.fixture(scope="module")
def chain() -> Iterator[Chain]:
    with running_chain([key.address for key in MEMBERS]) as running:
        yield running


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    store = EmbeddedStore(tmp_path / "store")
    store.publish(store.put(DOCUMENT.canonical()))
    serving_gateway = Gateway(store)
    serving_gateway.start()
    yield serving_gateway
    serving_gateway.stop()


@pytest.fixture
def wallet(chain: Chain) -> Key:
    """An account with 1,000 tokens."""
    key = Key.generate()
    chain.fund(key, 1_000 * TOKEN_WEI)
    return key


@pytest.fixture
def put_order(tmp_path: Path, chain: Chain, gateway: Gateway, wallet: Key) -> Run:
    """Runs ``put.py`` as this wallet; options may be changed or added."""
    key_file = tmp_path / "wallet.key"
    write_private(key_file, wallet.secret.hex() + "\n")
    cid = EmbeddedStore(tmp_path / "store").put(DOCUMENT.canonical())

    def run(**changes: str) -> int:
        options = {
            "rpc": chain.web3.provider.endpoint_uri,  # type: ignore[attr-defined]
            "orders": chain.book.orders,
            "key": str(key_file),
            "task-link": link_to(gateway.url, cid),
            "reward": "100",
            "train-s": "60",
            "validate-s": "20",
            "challenge-s": "20",
        }
        changed = options | {name.replace("_", "-"): value for name, value in changes.items()}
        return put.main([part for name, value in changed.items() for part in (f"--{name}", value)])

    return run


def test_an_order_is_escrowed_under_the_oid_that_the_wallet_computed(
    chain: Chain, wallet: Key, put_order: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert put_order(baseline="-0.7") == 0
    placed = json.loads(capsys.readouterr().out)
    assert placed["data_root"] == "0x" + data_root(DOCUMENT.fragment_digests()).hex()
    assert placed["task_hash"] == "0x" + DOCUMENT.digest().hex()
    client = chain.client(wallet)
    owner, amount, _ = client.orders.functions.escrowOf(bytes.fromhex(placed["oid"][2:])).call()
    assert bytes.fromhex(owner[2:]) == wallet.address
    assert amount == 105 * TOKEN_WEI, "the reward and the smallest deposit, 5 %"
    assert client.balance_of(wallet.address) == 895 * TOKEN_WEI


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"reward": "1"}, "OrderBook__RewardTooSmall(1000000000000000000, 10000000000000000000)"),
        ({"deposit": "4"}, "OrderBook__DepositTooSmall"),
        ({"train_s": "1"}, "OrderBook__WindowOutOfBounds(train, 1, 10, 2592000)"),
        ({"reward": "5000"}, "and needs 5250000000000000000000; nothing was spent"),
        ({"orders": "0x" + "22" * 20}, "put: "),
    ],
)
def test_a_refused_order_costs_no_token_and_leaves_no_allowance(
    chain: Chain,
    wallet: Key,
    put_order: Run,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, str],
    reason: str,
) -> None:
    assert put_order(**changes) == 1
    assert reason in capsys.readouterr().err
    assert chain.client(wallet).balance_of(wallet.address) == 1_000 * TOKEN_WEI
    sent = chain.web3.eth.get_transaction_count(to_checksum_address(wallet.address))
    assert sent == 0, "not even an approval"


def test_another_document_than_ones_own_is_not_ordered(
    tmp_path: Path, chain: Chain, wallet: Key, put_order: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "mine.json"
    mine.write_bytes(a_document(seed=1).canonical())
    assert put_order(task=str(mine)) == 1
    assert "is not the document that the task link serves" in capsys.readouterr().err
    mine.write_bytes(DOCUMENT.canonical())
    assert put_order(task=str(mine)) == 0
    assert chain.client(wallet).balance_of(wallet.address) == 895 * TOKEN_WEI


def test_get_asks_the_members_that_the_chain_names_and_writes_the_model(
    tmp_path: Path, chain: Chain, capsys: pytest.CaptureFixture[str]
) -> None:
    store = EmbeddedStore(tmp_path / "models")
    model = bytes(range(256)) * 2048
    cid = store.put(model)
    store.publish(cid)
    files = Gateway(store)
    files.start()
    true = answer_for(model, link_to(files.url, cid))
    rpc = chain.web3.provider.endpoint_uri  # type: ignore[attr-defined]
    target = tmp_path / "out" / "model.safetensors"
    arguments = [OID, "--rpc", rpc, "--orders", chain.book.orders, "-o", str(target)]
    try:
        with (
            serving(saying(**true)) as honest,
            serving(saying(mid="0x66")) as liar,
            serving(refusing) as late,
        ):
            for key, api in zip(MEMBERS, [liar, honest, late, honest], strict=True):
                member = chain.fund(key, 1_000 * TOKEN_WEI)
                member.register(Role.AGGREGATOR, 1_000 * TOKEN_WEI, f"tcp://127.0.0.1:1,{api}", bytes(32))
            assert sorted(filter(None, get.committee_apis(rpc, chain.book.orders))) == sorted(
                [honest, honest, liar, late]
            )
            assert get.main(arguments) == 0
    finally:
        files.stop()
    assert target.read_bytes() == model
    assert json.loads(capsys.readouterr().out)["sha256"] == true["mid"]
