"""A network without a DAO: its owner, and nobody else, changes what it likes at once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from eth_utils import to_checksum_address
from typer.testing import CliRunner

from dtn.app import app
from protocol.chain.changes import Action
from protocol.chain.owner import Owner
from protocol.crypto import Key
from protocol.errors import ChainError
from protocol.keyfile import write_private
from protocol.parameters import TOKEN_WEI
from tests.chain import Chain, running_chain
from tests.protocol.chain.test_dao import GOVERNANCE

STRANGER = Key(bytes([0x54]) * 32)


@pytest.fixture(scope="module")
def chain() -> Iterator[Chain]:
    with running_chain() as running:
        running.fund(STRANGER, TOKEN_WEI)
        yield running


def owner_of(chain: Chain, key: Key | None = None) -> Owner:
    key = key or chain.owner
    return Owner(chain.client(key), key.address)


def test_changes_are_made_in_their_order_and_told_one_by_one(chain: Chain) -> None:
    owner, members = owner_of(chain), chain.client(chain.owner).members()
    actions = [
        owner.set_parameter("update_s", 77),
        owner.appoint([*members[:3], STRANGER.address], 3),
        owner.set_guardian(STRANGER.address),
    ]
    made = list(owner.carry_out(actions))
    assert [change.says for change in made] == [owner.say(action) for action in actions]
    assert made[0].says == "Parameters.set(update_s, 77)" and all(change.gas_used for change in made)
    after = chain.client(chain.owner)
    assert after.parameter("update_s") == 77
    assert set(after.members()) == {*members[:3], STRANGER.address}


def test_a_stranger_changes_nothing(chain: Chain) -> None:
    stranger, before = owner_of(chain, STRANGER), chain.client(STRANGER).parameter("tax_bps")
    with pytest.raises(ChainError, match=r"decides over this network, not 0x.*nothing was changed"):
        list(stranger.carry_out([stranger.set_parameter("tax_bps", 400)]))
    assert chain.client(STRANGER).parameter("tax_bps") == before
    assert chain.web3.eth.get_transaction_count(to_checksum_address(STRANGER.address)) == 0


def test_what_the_chain_refuses_ends_there_and_what_was_done_stands(chain: Chain) -> None:
    owner = owner_of(chain)
    actions: list[Action] = [
        owner.set_parameter("tax_bps", 401),
        owner.unpause(),  # nothing is paused
        owner.set_parameter("tax_bps", 402),
    ]
    made = []
    with pytest.raises(ChainError, match=r"Settlement.unpause\(\) was not carried out"):
        for change in owner.carry_out(actions):
            made.append(change.says)
    assert made == ["Parameters.set(tax_bps, 401)"]
    assert chain.client(STRANGER).parameter("tax_bps") == 401


def test_where_a_dao_decides_no_account_does() -> None:
    with running_chain(governance=GOVERNANCE) as governed, pytest.raises(ChainError, match="dtn dao propose"):
        owner_of(governed)


def test_the_command_says_what_it_changed(chain: Chain, tmp_path: Path) -> None:
    def command(key: Key, *options: str) -> Any:
        (tmp_path / "network.json").write_text(chain.network_file("http://127.0.0.1:1").model_dump_json())
        config = tmp_path / f"{key.address.hex()}.toml"
        if not config.exists():
            write_private(config.with_suffix(".key"), key.secret.hex())
            config.write_text(
                f'key_file = "{config.with_suffix(".key")}"\ndata_dir = "data"\nnetwork = "network.json"\n'
            )
        return CliRunner().invoke(app, ["owner", "change", *options, "--config", str(config)])

    done = command(chain.owner, "--set", "update_s=78", "--set", "confirmations=3", "--json")
    assert done.exit_code == 0, (done.output, done.exception)
    says = [change["says"] for change in json.loads(done.stdout)["changes"]]
    assert says == ["Parameters.set(update_s, 78)", "Parameters.set(confirmations, 3)"]
    assert chain.client(chain.owner).parameter("confirmations") == 3
    assert "Parameters.set(update_s, 79) in 0x" in command(chain.owner, "--set", "update_s=79").output
    assert "decides over this network" in str(command(STRANGER, "--set", "update_s=80").exception)
    assert "say what to change" in str(command(chain.owner).exception)
    assert chain.client(chain.owner).parameter("update_s") == 79
