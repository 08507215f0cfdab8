"""``dtn owner``: changes of a network over which one account decides."""

from __future__ import annotations

import typer

from dtn.commands.changes import (
    Guardian,
    Members,
    Replace,
    Settings,
    Threshold,
    Unpause,
    actions_of,
)
from dtn.commands.orders import AccountOption, ConfigOption, SignerOption, client_of
from dtn.output import BadAmount, JsonFlag, line, print_json
from protocol.chain.owner import Owner

app = typer.Typer(help="Decide over a network that has no DAO.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Decide over a network that has no DAO."""


@app.command()
def change(
    settings: Settings = None,
    members: Members = None,
    replace: Replace = None,
    threshold: Threshold = None,
    guardian: Guardian = None,
    unpause: Unpause = False,
    config: ConfigOption = None,
    signer: SignerOption = None,
    account: AccountOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Change parameters, the committee or the guardian at once, as the owner of the contracts."""
    client, own = client_of(config, signer, account)
    owner = Owner(client.chain(), own.address)
    actions = actions_of(owner, settings, members, replace, threshold, guardian, unpause)
    if not actions:
        raise BadAmount("say what to change; `dtn owner change --help` lists it")
    made = []
    for done in owner.carry_out(actions):
        made.append({"says": done.says, "tx": "0x" + done.transaction_hash.hex(), "gas_used": done.gas_used})
        if not as_json:
            line(f"{done.says} in 0x{done.transaction_hash.hex()}")
    if as_json:
        print_json({"changes": made})
