"""External signers: Anvil's own account in every dialect, and liars, of whose answers none is ever used."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from eth_utils.address import to_checksum_address
from typer.testing import CliRunner

from dtn.app import app
from dtn.doctor.diagnosis import diagnose
from offchain.client import Client, ClientDaemon
from offchain.config import ClientConfig, InvalidConfig, KeyNeeded, ProviderConfig, ValidatorConfig
from offchain.validator import Validator
from protocol.chain.client import ChainClient
from protocol.chain.external_signer import MAX_ANSWER_BYTES, ExternalSigner
from protocol.crypto import Key
from protocol.errors import SignedOtherwise, SignerRefused, SignerUnavailable
from protocol.parameters import TOKEN_WEI
from protocol.roles import Role
from protocol.transactions import Cancel, TestRelease, authenticate, sign_transaction
from protocol.typed_data import Domain, digest_of, wallet_json
from tests.chain import Chain, running_chain
from tests.keys.signers import DEV_KEY, Refused, Standing, dialects, signed_raw
from tests.scripts.serving import serving

ACCOUNT = DEV_KEY.address
STRANGER = Key((99).to_bytes(32, "big"))
OTHER = Key((98).to_bytes(32, "big")).address
DOMAIN = Domain(31337, b"\x07" * 20)
RELEASE = TestRelease(
    sender=ACCOUNT, nonce=7, oid=bytes(32), fragments=(b"\x01" * 32, b"\x02" * 32), links=("http://a/ipfs/é",)
)


@pytest.fixture(scope="module")
def chain() -> Iterator[Chain]:
    with running_chain() as running:
        bank = ChainClient(running.web3, running.book, running.owner)
        bank.transfer(ACCOUNT, 5_000 * TOKEN_WEI)
        yield running


def rpc_url(chain: Chain) -> str:
    return chain.network_file("http://127.0.0.1:1").rpc_url


def signing(chain: Chain, signer: ExternalSigner) -> ChainClient:
    return ChainClient(chain.web3, chain.book, signer)


@pytest.fixture(params=["anvil", "clef", "web3signer", "wallet"])
def signer(request: pytest.FixtureRequest, chain: Chain) -> Iterator[ExternalSigner]:
    """The treasury's account as each kind of signer offers it."""
    if request.param == "anvil":
        yield ExternalSigner(rpc_url(chain), ACCOUNT)
        return
    with dialects(rpc_url(chain))[request.param].up() as standing:
        yield ExternalSigner(standing.url, ACCOUNT)


# What works ------------------------------------------------------------------------------------------------


def test_every_dialect_spends_tokens_and_signs_what_the_ledger_takes(
    chain: Chain, signer: ExternalSigner
) -> None:
    signer.check()
    before = chain.client(STRANGER).balance_of(OTHER)
    receipt = signing(chain, signer).transfer(OTHER, 3 * TOKEN_WEI)
    assert receipt["status"] == 1 and receipt["from"] == to_checksum_address(ACCOUNT)
    assert chain.client(STRANGER).balance_of(OTHER) == before + 3 * TOKEN_WEI
    signed = sign_transaction(DOMAIN, RELEASE, signer)
    assert authenticate(DOMAIN, signed) == digest_of(DOMAIN, RELEASE)
    assert signed.signature == DEV_KEY.sign(digest_of(DOMAIN, RELEASE))


def test_a_chain_without_base_fee_gets_a_transaction_of_the_old_kind(chain: Chain) -> None:
    signer = ExternalSigner(rpc_url(chain), ACCOUNT)
    client = signing(chain, signer)
    call = client.token.functions.transfer(to_checksum_address(OTHER), 1)
    sender = to_checksum_address(ACCOUNT)
    nonce = chain.web3.eth.get_transaction_count(sender)
    transaction = call.build_transaction(
        {"from": sender, "nonce": nonce, "gasPrice": chain.web3.eth.gas_price * 2}
    )
    assert "maxFeePerGas" not in transaction
    sent = signer.send_transaction(chain.web3, transaction)
    assert chain.web3.eth.wait_for_transaction_receipt(sent, timeout=20)["status"] == 1  # type: ignore[arg-type]
    assert chain.web3.eth.get_transaction(sent)["type"] == 0  # type: ignore[arg-type]


# Liars -----------------------------------------------------------------------------------------------------

CHANGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "nonce": lambda fields: signed_raw(fields, nonce=int(fields["nonce"], 16) + 1),
    "to": lambda fields: signed_raw(fields, to=to_checksum_address(STRANGER.address)),
    "value": lambda fields: signed_raw(fields, value=1),
    "data": lambda fields: signed_raw(fields, data=fields["data"][:-2] + "ff"),
    "gas": lambda fields: signed_raw(fields, gas=int(fields["gas"], 16) + 1),
    "fee": lambda fields: signed_raw(fields, maxFeePerGas=int(fields["maxFeePerGas"], 16) * 1000),
    "chain": lambda fields: signed_raw(fields, chainId=1),
    "type": lambda fields: signed_raw(
        fields, maxFeePerGas=None, maxPriorityFeePerGas=None, type=None, gasPrice=10**10
    ),
    "access-list": lambda fields: signed_raw(
        fields, accessList=[{"address": to_checksum_address(OTHER), "storageKeys": []}]
    ),
    "another-key": lambda fields: signed_raw(fields, key=STRANGER),
    "cut-off": lambda fields: signed_raw(fields)[:-2],
    "more-behind": lambda fields: signed_raw(fields) + "00",
    "nothing": lambda fields: None,
    "empty": lambda fields: "0x",
    "words": lambda fields: "signed!",
    "number": lambda fields: 7,
    "list": lambda fields: [signed_raw(fields)],
    "raw-of-nothing": lambda fields: {"raw": {"raw": 1}},
    "deep": lambda fields: "0x02" + "c1" * 2_000,
    "hash-only": lambda fields: "0x" + "ab" * 32,
}


@pytest.mark.parametrize("change", CHANGES)
def test_nothing_is_sent_that_is_not_what_was_asked_for(chain: Chain, change: str) -> None:
    with Standing(eth_signTransaction=CHANGES[change]).up() as standing:
        client = signing(chain, ExternalSigner(standing.url, ACCOUNT))
        before = chain.web3.eth.get_transaction_count(to_checksum_address(ACCOUNT), "pending")
        with pytest.raises(SignedOtherwise, match="nothing was sent"):
            client.transfer(OTHER, TOKEN_WEI)
        assert [method for method, _ in standing.asked] == ["eth_signTransaction"]
    assert chain.web3.eth.get_transaction_count(to_checksum_address(ACCOUNT), "pending") == before


def test_the_stand_in_of_liars_is_believed_when_it_does_not_lie(chain: Chain) -> None:
    with Standing(eth_signTransaction=signed_raw).up() as standing:
        client = signing(chain, ExternalSigner(standing.url, ACCOUNT))
        assert client.transfer(OTHER, TOKEN_WEI)["status"] == 1


def test_a_wallet_that_sends_something_else_is_told_of(chain: Chain) -> None:
    def steals(fields: dict[str, Any]) -> str:
        raw = signed_raw(fields, to=to_checksum_address(STRANGER.address), value=5, data="0x")
        return "0x" + chain.web3.eth.send_raw_transaction(raw).hex().removeprefix("0x")  # type: ignore[arg-type]

    with Standing(eth_sendTransaction=steals).up() as standing:
        client = signing(chain, ExternalSigner(standing.url, ACCOUNT))
        with pytest.raises(SignedOtherwise, match=r"SENT something else.*look at transaction 0x[0-9a-f]{64}"):
            client.transfer(OTHER, TOKEN_WEI)


def test_a_wallet_that_says_it_sent_what_no_chain_has_seen(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("protocol.chain.external_signer.SEEN_S", 0.3)
    with Standing(eth_sendTransaction=lambda fields: "0x" + "cd" * 32).up() as standing:
        client = signing(chain, ExternalSigner(standing.url, ACCOUNT))
        with pytest.raises(SignerUnavailable, match="has not seen it"):
            client.transfer(OTHER, TOKEN_WEI)


OTHER_TEXT = DEV_KEY.sign(digest_of(DOMAIN, Cancel(sender=ACCOUNT, nonce=7, oid=bytes(32))))
RIGHT = DEV_KEY.sign(digest_of(DOMAIN, RELEASE))
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
HIGH = (
    RIGHT[:32] + (ORDER - int.from_bytes(RIGHT[32:64], "big")).to_bytes(32, "big") + bytes([55 - RIGHT[64]])
)


@pytest.mark.parametrize(
    "answer",
    [
        "0x" + OTHER_TEXT.hex(),
        "0x" + STRANGER.sign(digest_of(DOMAIN, RELEASE)).hex(),
        "0x" + HIGH.hex(),
        "0x" + RIGHT[:-1].hex(),
        "0x" + (RIGHT + b"\0").hex(),
        "0x" + (RIGHT[:-1] + b"\x25").hex(),
        "0x" + bytes(65).hex(),
        "0x",
        "yes",
        None,
        {"signature": "0x" + RIGHT.hex()},
    ],
)
def test_a_signature_over_something_else_or_by_somebody_else_is_none(answer: Any) -> None:
    with Standing(eth_signTypedData_v4=lambda account, text: answer).up() as standing:
        with pytest.raises(SignedOtherwise):
            sign_transaction(DOMAIN, RELEASE, ExternalSigner(standing.url, ACCOUNT))
        assert standing.asked == [
            (
                "eth_signTypedData_v4",
                [to_checksum_address(ACCOUNT), json.dumps(wallet_json(DOMAIN, RELEASE))],
            )
        ]


def test_devices_that_count_parity_from_zero_are_understood() -> None:
    from_zero = "0x" + (RIGHT[:-1] + bytes([RIGHT[64] - 27])).hex()
    with Standing(eth_signTypedData_v4=lambda account, text: from_zero).up() as standing:
        assert sign_transaction(DOMAIN, RELEASE, ExternalSigner(standing.url, ACCOUNT)).signature == RIGHT


def test_who_declines_is_quoted_on_one_line_and_short() -> None:
    def declines(*params: Any) -> Any:
        raise Refused(4001, "no\n\x1b[2J" + "never " * 1_000)

    with (
        Standing(eth_signTypedData_v4=declines).up() as standing,
        pytest.raises(SignerRefused) as refused,
    ):
        sign_transaction(DOMAIN, RELEASE, ExternalSigner(standing.url, ACCOUNT))
    said = str(refused.value)
    assert "refused eth_signTypedData_v4: no" in said and said.isprintable() and len(said) < 400
    assert len(standing.asked) == 1  # who declined is not asked in another dialect


def test_a_signer_without_the_account_or_without_any_method_is_told_from_one_that_signs() -> None:
    with Standing(eth_accounts=lambda: ["0x" + OTHER.hex()]).up() as standing:
        signer = ExternalSigner(standing.url, ACCOUNT)
        with pytest.raises(SignerRefused, match="does not have the account"):
            signer.check()
        with pytest.raises(SignerUnavailable, match="knows none of eth_signTypedData_v4, eth_signTypedData"):
            sign_transaction(DOMAIN, RELEASE, signer)


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"<html>", b"[]", b"7", b"{}", b'{"id": 1}', b'{"id": 2, "result": "0x"}', b"[" * 50_000),
        b'{"id": 1, "result": "0x' + b"00" * MAX_ANSWER_BYTES + b'"}',
    ],
    ids=range(9),
)
def test_what_is_no_signer_is_said_to_be_none(body: bytes) -> None:
    with (
        serving(lambda path: (404, b""), lambda asked: (200, body)) as url,
        pytest.raises(SignerUnavailable),
    ):
        ExternalSigner(url, ACCOUNT).check()


@pytest.mark.timeout(60)  # of a wait of half a second
@pytest.mark.parametrize("drips", [False, True], ids=["silent", "dripping"])
def test_who_does_not_answer_holds_nobody_for_longer_than_was_said(drips: bool) -> None:
    ended = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))

    def hang() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            if drips:
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
            while not ended.wait(0.05):
                if drips:
                    connection.sendall(b" ")

    thread = threading.Thread(target=hang)
    thread.start()
    try:
        signer = ExternalSigner(f"http://127.0.0.1:{listener.getsockname()[1]}", ACCOUNT, timeout_s=0.5)
        with pytest.raises(
            SignerUnavailable, match=r"did not answer eth_accounts in 0\.5 s; it may still sign"
        ):
            signer.check()
    finally:
        ended.set()
        thread.join()
        listener.close()


def test_no_error_shows_the_password_in_a_signers_url() -> None:
    signer = ExternalSigner("http://me:hunter2@127.0.0.1:1/path?token=hunter2", ACCOUNT)
    with pytest.raises(SignerUnavailable) as reason:
        signer.check()
    assert "hunter2" not in str(reason.value) + repr(signer) and "http://127.0.0.1:1/path" in str(
        reason.value
    )


# The roles -------------------------------------------------------------------------------------------------

SIGNED_BY = 'signer_url = "{url}"\naccount = "0x{account}"\ndata_dir = "data"\nnetwork = "network.json"\n'
TASK = """\
title: digits
model: {family: mlp, hidden: [8]}
data: {dataset: digits}
windows: {train_s: 60, validate_s: 60, challenge_s: 60}
test: {fragments: 3, of: 12}
"""


def configured(folder: Path, chain: Chain, url: str, more: str = "") -> Path:
    (folder / "network.json").write_text(chain.network_file("http://127.0.0.1:1").model_dump_json())
    path = folder / "treasury.toml"
    path.write_text(SIGNED_BY.format(url=url, account=ACCOUNT.hex()) + more)
    return path


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments))


@pytest.mark.parametrize("how", ["configuration", "options"])
def test_dtn_put_places_an_order_of_an_account_whose_key_is_elsewhere(
    chain: Chain, tmp_path: Path, how: str
) -> None:
    config = configured(tmp_path, chain, rpc_url(chain), "gateway_port = 7704\n")
    options: list[str] = []
    if how == "options":
        config.write_text(
            'key_file = "not-there"\ngateway_port = 7704\n' + 'data_dir = "data"\nnetwork = "network.json"\n'
        )
        options = ["--signer", rpc_url(chain), "--account", to_checksum_address(ACCOUNT)]
    (tmp_path / "task.yaml").write_text(TASK)
    done = invoke(
        "put", str(tmp_path / "task.yaml"), "--reward", "100", "--config", str(config), "--json", *options
    )
    assert done.exit_code == 0, (done.output, done.exception)
    oid = bytes.fromhex(json.loads(done.stdout)["oid"][2:])
    client, escrow, _ = chain.client(STRANGER).escrow_of(oid)
    assert client == ACCOUNT and escrow >= 100 * TOKEN_WEI
    assert not list(tmp_path.glob("**/*.key"))


def test_the_daemon_of_such_a_client_releases_the_test_set(chain: Chain, tmp_path: Path) -> None:
    config = ClientConfig.read(configured(tmp_path, chain, rpc_url(chain)))
    daemon = ClientDaemon(config)
    try:
        assert daemon.me == "0x" + ACCOUNT.hex()
        sent: list[bytes] = []

        def ordered(signed: Any) -> Any:
            sent.append(authenticate(daemon.file.domain, signed))
            return {"id": "0x", "sequence": 1}

        daemon.network._send = ordered  # type: ignore[method-assign]
        daemon.network.submit(TestRelease, oid=bytes(32), fragments=(bytes(32),), links=(daemon.url,))
        assert len(sent) == 1
    finally:
        daemon.close()


def test_such_an_account_stakes_but_no_process_commits_for_it(chain: Chain, tmp_path: Path) -> None:
    config = configured(tmp_path, chain, rpc_url(chain))
    done = invoke("validator", "register", "--config", str(config), "--json")
    assert done.exit_code == 0, (done.output, done.exception)
    assert json.loads(done.stdout)["account"] == "0x" + ACCOUNT.hex()
    assert chain.client(STRANGER).stake_of(ACCOUNT, Role.VALIDATOR)[0] > 0
    with pytest.raises(KeyNeeded, match=r"salts of commitments.*name a keystore as key_file"):
        Validator(ValidatorConfig.read(config))
    with pytest.raises(KeyNeeded):
        ProviderConfig.read(config).key()


def test_the_doctor_asks_the_signer_for_the_account(chain: Chain, tmp_path: Path) -> None:
    def found(path: Path) -> tuple[str, str]:
        finding = next(each for each in diagnose("client", path) if each.check == "signer")
        return finding.verdict, finding.what

    assert found(configured(tmp_path, chain, rpc_url(chain)))[0] == "ok"
    verdict, what = found(configured(tmp_path, chain, "http://127.0.0.1:1"))
    assert verdict == "failed" and "no signer answers" in what


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ("", "either key_file or signer_url"),
        ('signer_url = "http://a"\n', "go together"),
        ('account = "0x' + "11" * 20 + '"\n', "go together"),
        ('key_file = "k"\nsigner_url = "http://a"\naccount = "0x' + "11" * 20 + '"\n', "and not both"),
        ('signer_url = "ftp://a"\naccount = "0x' + "11" * 20 + '"\n', "signer_url"),
        ('signer_url = "http://a"\naccount = "0x11"\n', "account"),
    ],
)
def test_a_configuration_names_one_who_signs(tmp_path: Path, lines: str, says: str) -> None:
    path = tmp_path / "client.toml"
    path.write_text('data_dir = "data"\nnetwork = "network.json"\n' + lines)
    with pytest.raises(InvalidConfig, match=says):
        ClientConfig.read(path)


def test_options_without_an_account_are_refused(chain: Chain, tmp_path: Path) -> None:
    path = tmp_path / "client.toml"
    path.write_text('key_file = "k"\ndata_dir = "data"\nnetwork = "network.json"\n')
    with pytest.raises(InvalidConfig, match="go together"):
        ClientConfig.read(path).signed_by("http://127.0.0.1:1", None)


def test_dtn_init_writes_such_a_configuration_and_makes_no_key(tmp_path: Path) -> None:
    path, account = tmp_path / "client.toml", "0x" + ACCOUNT.hex()
    settings = ("--set", "signer_url=http://127.0.0.1:8550", "--set", f"account={account}")
    done = invoke("init", "client", "--yes", "-o", str(path), *settings, "--json")
    assert done.exit_code == 0, (done.output, done.exception)
    assert ClientConfig.read(path).address == ACCOUNT and json.loads(done.stdout)["key_file"] is None
    assert [each.name for each in tmp_path.iterdir()] == ["client.toml"]


def test_the_sdk_takes_any_signer(chain: Chain, tmp_path: Path) -> None:
    configured(tmp_path, chain, rpc_url(chain))
    signer = ExternalSigner(rpc_url(chain), ACCOUNT)
    client = Client.open(tmp_path / "network.json", key_file=None, data_dir=tmp_path, signer=signer)
    client.chain().transfer(OTHER, 5)
    client.network.close()
    assert client.chain().transfers_to(OTHER, after_block=0)[-1][1] == 5
