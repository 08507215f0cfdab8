"""`dtn dao` for an account whose key is elsewhere: it delegates, proposes, votes and executes."""

from __future__ import annotations

import json
from pathlib import Path

from eth_utils import to_checksum_address
from typer.testing import CliRunner

from dtn.app import app
from tests.chain import running_chain
from tests.keys.test_external_signer import ACCOUNT, rpc_url
from tests.protocol.chain.test_dao import ENOUGH, GOVERNANCE, passes


def test_a_treasury_whose_key_is_in_a_wallet_takes_part_in_every_step(tmp_path: Path) -> None:
    """The wallet is the chain's node, which holds the account's key and signs for it."""
    with running_chain(governance=GOVERNANCE) as chain:
        chain.client(chain.owner).transfer(ACCOUNT, ENOUGH)
        (tmp_path / "network.json").write_text(chain.network_file("http://127.0.0.1:1").model_dump_json())
        config = tmp_path / "client.toml"
        config.write_text('key_file = "not-there"\ndata_dir = "data"\nnetwork = "network.json"\n')
        signed = ["--signer", rpc_url(chain), "--account", to_checksum_address(ACCOUNT)]

        def dao(*arguments: str) -> str:
            done = CliRunner().invoke(app, ["dao", *arguments, *signed, "--config", str(config)])
            assert done.exit_code == 0, (done.output, done.exception)
            return done.output

        assert json.loads(dao("delegate", "--json"))["votes_wei"] == str(ENOUGH)
        passes(chain, 2)
        changes = ["--set", "update_s=77", "--set", "tax_bps=400"]
        proposal = json.loads(dao("propose", "--description", "why", *changes, "--json"))
        number = f"{int(proposal['number']):x}"
        listed = dao("list").splitlines()
        assert [line.count("set(") for line in listed if "set(" in line] == [1, 1], "a line for each change"
        passes(chain, GOVERNANCE.voting_delay_s + 1)
        assert "active: 50000000 for" in dao("vote", number, "for")
        passes(chain, GOVERNANCE.voting_period_s + 1)
        assert "queued" in dao("execute", number)
        passes(chain, GOVERNANCE.timelock_s)
        assert "executed" in dao("execute", number)
        assert chain.client(chain.owner).parameter("update_s") == 77
