"""The client and the ``dtn`` command against a real chain: whom Get believes, and how money comes back."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from dtn.app import app
from offchain.client import Client, read_task_file
from offchain.committee import Committee, read_committee
from offchain.network import LedgerRefused, Network, NetworkError, NetworkFile
from offchain.storage import EmbeddedStore, Gateway, link_to
from protocol.chain.deployment import parameter_key
from protocol.crypto import Key
from protocol.errors import InvalidDocument, UnknownVersion
from protocol.keyfile import write_private
from protocol.parameters import TOKEN_WEI
from protocol.roles import Role
from protocol.transactions import Order, order_id
from protocol.version import SUPPORTED
from tests.chain import Chain, chainless_network, running_chain
from tests.scripts.serving import serving
from tests.scripts.test_get import OID, answer_for, refusing, saying

MEMBERS = sorted((Key((index + 1).to_bytes(32, "big")) for index in range(4)), key=lambda key: key.address)
MODEL = bytes(range(256)) * 64
DEAD = "http://127.0.0.1:1"


@pytest.fixture
def chain() -> Iterator[Chain]:
    with running_chain([key.address for key in MEMBERS]) as running:
        yield running


@pytest.fixture
def link(tmp_path: Path) -> Iterator[str]:
    """Where the model is served."""
    store = EmbeddedStore(tmp_path / "models")
    cid = store.put(MODEL)
    store.publish(cid)
    gateway = Gateway(store)
    gateway.start()
    yield link_to(gateway.url, cid)
    gateway.stop()


def register(chain: Chain, apis: list[str]) -> None:
    """The first members register these APIs."""
    for key, api in zip(MEMBERS, apis, strict=False):
        member = chain.fund(key, 1_000 * TOKEN_WEI)
        member.register(Role.AGGREGATOR, 1_000 * TOKEN_WEI, f"tcp://127.0.0.1:1,{api}", bytes(32))


def get(file: NetworkFile, folder: Path) -> bytes:
    """What a client without a key gets."""
    client = Client(file, None, folder / "client")
    with contextlib.closing(client.network):
        return client.get(bytes.fromhex(OID[2:]))[0]


# Get ---------------------------------------------------------------------------------------------------


def test_a_network_file_with_one_liar_does_not_decide_whom_get_believes(
    chain: Chain, tmp_path: Path, link: str
) -> None:
    true = answer_for(MODEL, link)
    with (
        serving(saying(**true)) as first,
        serving(saying(**true)) as second,
        serving(saying(mid="0x66")) as liar,
    ):
        register(chain, [liar, first, second, DEAD])
        assert get(chain.network_file(liar), tmp_path) == MODEL


def test_one_answer_is_not_enough_for_a_committee_of_four(chain: Chain, tmp_path: Path, link: str) -> None:
    with serving(saying(**answer_for(MODEL, link))) as honest:
        register(chain, [honest])
        with pytest.raises(NetworkError, match=r"2 of 4 .* only 1 are known: .*dtn network create"):
            get(chain.network_file(honest, honest + "/"), tmp_path)
        register(chain, [honest, honest])
        with pytest.raises(NetworkError, match="only 1 are known"):
            get(chain.network_file(honest), tmp_path)
        register(chain, [honest, honest, DEAD])
        with pytest.raises(NetworkError, match="fewer than 2 of 4"):
            get(chain.network_file(honest), tmp_path)


def test_the_network_file_helps_out_where_members_registered_nothing(
    chain: Chain, tmp_path: Path, link: str
) -> None:
    true = answer_for(MODEL, link)
    with serving(saying(**true)) as first, serving(saying(**true)) as second:
        register(chain, [first])
        assert get(chain.network_file(first, second), tmp_path) == MODEL


def test_a_committee_of_one_is_believed_alone(tmp_path: Path, link: str) -> None:
    with running_chain([MEMBERS[0].address]) as chain, serving(saying(**answer_for(MODEL, link))) as only:
        register(chain, [only])
        assert get(chain.network_file(only), tmp_path) == MODEL


def test_while_the_chain_is_silent_the_network_file_counts(
    chain: Chain, tmp_path: Path, link: str, caplog: pytest.LogCaptureFixture
) -> None:
    true = answer_for(MODEL, link)
    with serving(saying(**true)) as first, serving(saying(**true)) as second:
        file = chain.network_file(first, second, DEAD, DEAD + "2")
        chain.process.terminate()
        chain.process.wait(timeout=10)
        assert get(file, tmp_path) == MODEL
    assert "trusting the network file to list the whole committee" in caplog.text


# Asking the committee, without a chain -------------------------------------------------------------------


def asked(*apis: str) -> Any:
    """What f + 1 of four members at these URLs agree on."""
    network = Network(chainless_network(DEAD))
    with contextlib.closing(network):
        return network.agreed("/v1/x", lambda a: (a["mid"], a["links"]), Committee(4, apis))


@pytest.mark.parametrize("status", [200, 400, 404])
@pytest.mark.parametrize("lie", [b"[]", b"7", b"{}", b'{"mid": 1}', b'{"error": "x"}', b"null", b"\xff"])
def test_nonsense_from_a_member_is_no_answer_and_stops_nobody(status: int, lie: bytes) -> None:
    with (
        serving(lambda path: (status, lie)) as liar,
        serving(saying()) as honest,
        serving(saying()) as second,
    ):
        assert asked("http://[", "http://a b", liar, honest, second)["mid"] == "0x01"


@pytest.mark.parametrize("lie", [b"[]", b"7", b"null", b"[" * 100_000])
def test_what_is_no_object_is_no_answer(lie: bytes) -> None:
    with serving(lambda path: (200, lie)) as liar, serving(saying()) as honest:
        with contextlib.closing(Network(chainless_network(liar, honest))) as network:
            assert network.get("/v1/x")["mid"] == "0x01"
        with contextlib.closing(Network(chainless_network(liar))) as network, pytest.raises(NetworkError):
            network.get("/v1/x")


def test_what_an_answer_lacks_is_an_error_that_names_it() -> None:
    with serving(lambda path: (200, b'{"order": {}}')) as liar:
        network = Network(chainless_network(liar))
        with contextlib.closing(network), pytest.raises(NetworkError, match="lacks 'dataRoot'"):
            network.get("/v1/x")["order"]["dataRoot"]


def test_a_refusal_is_told_with_its_reason() -> None:
    with (
        serving(refusing) as one,
        serving(refusing) as two,
        pytest.raises(LedgerRefused, match="no winner yet"),
    ):
        asked(one, two)


# dtn network create ----------------------------------------------------------------------------------------


def create(chain: Chain, folder: Path) -> Any:
    chain.book.write(folder / "addresses.json")
    options = ["--rpc", chain.network_file().rpc_url, "--addresses", str(folder / "addresses.json")]
    return CliRunner().invoke(
        app, ["network", "create", *options, "-o", str(folder / "network.json"), "--json"]
    )


def test_a_network_file_is_made_of_what_the_chain_says(chain: Chain, tmp_path: Path) -> None:
    register(chain, ["http://127.0.0.1:1/", "https://127.0.0.1:2", "http://127.0.0.1:3"])
    chain.client(MEMBERS[2]).set_endpoint("tcp://127.0.0.1:9", bytes(32))
    done = create(chain, tmp_path)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["members"] == 4
    file = NetworkFile.read(tmp_path / "network.json")
    assert file == chain.network_file("http://127.0.0.1:1", "https://127.0.0.1:2")
    assert read_committee(chain.client(Key.generate())) == Committee(4, file.aggregators)


def test_a_network_that_nobody_could_use_gets_no_file(chain: Chain, tmp_path: Path) -> None:
    register(chain, ["http://127.0.0.1:1"])
    done = create(chain, tmp_path)
    assert isinstance(done.exception, NetworkError) and "users need 2" in str(done.exception)
    assert not (tmp_path / "network.json").exists()


# dtn reclaim -----------------------------------------------------------------------------------------------


@pytest.fixture
def wallet(chain: Chain, tmp_path: Path) -> Path:
    """A client's configuration; its account has 1,000 tokens."""
    key = Key.generate()
    chain.fund(key, 1_000 * TOKEN_WEI)
    write_private(tmp_path / "client.key", key.secret.hex())
    (tmp_path / "network.json").write_text(chain.network_file(DEAD).model_dump_json())
    config = tmp_path / "client.toml"
    config.write_text('key_file = "client.key"\ndata_dir = "data"\nnetwork = "network.json"\n')
    return config


def place(chain: Chain, key: Key) -> bytes:
    order = Order(
        client=key.address,
        nonce=1,
        kind="open",
        reward=100 * TOKEN_WEI,
        deposit=5 * TOKEN_WEI,
        train_window=60,
        validate_window=60,
        challenge_window=60,
        task_hash=b"\x01" * 32,
        task_link=f"{DEAD}/ipfs/x",
        data_root=b"\x02" * 32,
        baseline=0,
    )
    client = chain.client(key)
    client.put(order)
    return order_id(client.domain, order)


def reclaim(oid: bytes, config: Path) -> Any:
    return CliRunner().invoke(app, ["reclaim", "0x" + oid.hex(), "--config", str(config), "--json"])


def test_no_reward_is_escrowed_on_a_network_whose_rules_are_unknown_here(
    chain: Chain, tmp_path: Path
) -> None:
    key = Key.generate()
    chain.fund(key, 1_000 * TOKEN_WEI)
    owner = chain.client(chain.owner)
    newer = owner.parameters.functions.set(parameter_key("protocol_version"), SUPPORTED.high + 1)
    owner.send(newer, "another version")
    client = Client(chain.network_file(DEAD), key, tmp_path / "client")
    task = read_task_file(Path("examples/digits.yaml"))
    with contextlib.closing(client.network), pytest.raises(UnknownVersion, match="this software knows"):
        client.put(task, reward_wei=100 * TOKEN_WEI, gateway=DEAD)
    assert owner.balance_of(key.address) == 1_000 * TOKEN_WEI


def test_an_escrow_comes_back_once_it_is_due_and_not_before(chain: Chain, wallet: Path) -> None:
    key = Key(bytes.fromhex((wallet.parent / "client.key").read_text()))
    oid = place(chain, key)
    assert chain.client(key).balance_of(key.address) == 895 * TOKEN_WEI
    early = reclaim(oid, wallet)
    assert isinstance(early.exception, InvalidDocument)
    assert "may settle this order until 20" in str(early.exception) and "30 days" in str(early.exception)
    chain.rpc("evm_increaseTime", [31 * 86_400])
    chain.mine()
    done = reclaim(oid, wallet)
    assert done.exit_code == 0, done.output
    assert int(json.loads(done.stdout)["amount_wei"]) == 105 * TOKEN_WEI
    assert chain.client(key).balance_of(key.address) == 1_000 * TOKEN_WEI
    assert "holds no escrow any more" in str(reclaim(oid, wallet).exception)


def test_nobody_reclaims_what_was_never_placed_or_is_anothers(chain: Chain, wallet: Path) -> None:
    assert "was ever placed" in str(reclaim(bytes(32), wallet).exception)
    other = Key.generate()
    chain.fund(other, 1_000 * TOKEN_WEI)
    assert f"only its client 0x{other.address.hex()}" in str(reclaim(place(chain, other), wallet).exception)


# dtn aggregator withdraw -----------------------------------------------------------------------------------


def test_an_aggregator_without_released_stake_has_nothing_to_withdraw(chain: Chain, tmp_path: Path) -> None:
    register(chain, ["http://127.0.0.1:1"])
    chain.book.write(tmp_path / "addresses.json")
    write_private(tmp_path / "aggregator.key", MEMBERS[0].secret.hex())
    config = tmp_path / "aggregator.toml"
    config.write_text(
        'key_file = "aggregator.key"\ndata_dir = "data"\naddress_book = "addresses.json"\n'
        f'rpc_url = "{chain.network_file().rpc_url}"\nlink_listen = "tcp://127.0.0.1:1"\napi_port = 1\n'
    )
    arguments = ["aggregator", "withdraw", "--config", str(config)]
    assert "no stake as aggregator is released yet" in str(CliRunner().invoke(app, arguments).exception)
