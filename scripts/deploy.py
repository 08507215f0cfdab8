"""Deploy the contracts with ape: ``ape run deploy --network ethereum:local:foundry``.

Guarantees: runs the plan of ``protocol/chain/deployment.py``, the same that the devnet runs, and writes
the address book last, so that a file means a complete deployment.

On a local network the test accounts serve: the first deploys, owns and holds the tokens, the first four
are the committee. Elsewhere everything is named, by options or in a TOML file given with ``--config``:

    members = ["0x…", "0x…", "0x…", "0x…"]
    threshold = 3
    treasury = "0x…"
    [parameters]
    update_s = 600

Source: design section 5; docs/toolchain.md for BSC testnet.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import click
from ape import accounts, chain, networks, project
from ape.api import AccountAPI
from ape.cli import ConnectedProviderCommand

from protocol.chain.deployment import AddressBook, Plan, make_plan, resolve

LOCAL_COMMITTEE_SIZE = 4
CONFIG_KEYS = frozenset({"owner", "holder", "treasury", "members", "threshold", "parameters"})


@click.command(cls=ConnectedProviderCommand)
@click.option("--account", "alias", help="ape account that deploys; a test account on local networks")
@click.option("--config", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="a TOML file")
@click.option("--member", "members", multiple=True, help="an aggregator's account; repeat for each")
@click.option("--threshold", type=int, help="signatures a settlement needs; n - f by default")
@click.option("--treasury", help="who receives fines")
@click.option("--owner", help="who may change parameters and committee; the deployer by default")
@click.option("--holder", help="who receives the token supply; the deployer by default")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="a parameter's value")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar="DTN_ADDRESSES",
    help="where to write the address book; build/addresses-<chain id>.json by default",
)
def cli(alias: str | None, config: Path | None, output: Path | None, **options: Any) -> None:
    """Deploy and wire the contracts, and write the address book."""
    deployer = accounts.load(alias) if alias else _local_deployer()
    try:
        plan = make_plan(**_arguments(deployer, config, options))
    except (ValueError, tomllib.TOMLDecodeError) as reason:
        raise click.UsageError(str(reason)) from reason
    book = deploy(deployer, plan)
    target = output or Path("build") / f"addresses-{book.chain_id}.json"
    book.write(target)
    click.echo(f"deployed on chain {book.chain_id}; addresses in {target}")


def deploy(deployer: AccountAPI, plan: Plan) -> AddressBook:
    """Run ``plan`` on the connected network."""
    contracts: dict[str, Any] = {}
    addresses: dict[str, str] = {}
    first_block = chain.blocks.head.number + 1
    for creation in plan.creations:
        container = getattr(project, creation.contract)
        instance = deployer.deploy(container, *resolve(creation.arguments, addresses))
        contracts[creation.name] = instance
        addresses[creation.name] = str(instance.address)
    for call in plan.calls:
        getattr(contracts[call.target], call.method)(*resolve(call.arguments, addresses), sender=deployer)
    return AddressBook(
        chain_id=networks.provider.chain_id, block=first_block, treasury=plan.treasury, **addresses
    )


def _local_deployer() -> AccountAPI:
    if not networks.provider.network.is_local:
        raise click.UsageError("this is no local network: name the deploying account with --account")
    return accounts.test_accounts[0]


def _arguments(deployer: AccountAPI, config: Path | None, options: dict[str, Any]) -> dict[str, Any]:
    """Arguments of ``make_plan``: options first, then the file, then what a local network implies."""
    written = tomllib.loads(config.read_text(encoding="utf-8")) if config else {}
    unknown = sorted(set(written) - CONFIG_KEYS)
    if unknown:
        raise ValueError(f"{config} sets {', '.join(unknown)}; known are {', '.join(sorted(CONFIG_KEYS))}")
    implied: dict[str, Any] = {"owner": deployer.address, "holder": deployer.address}
    if networks.provider.network.is_local:
        implied["treasury"] = accounts.test_accounts[LOCAL_COMMITTEE_SIZE].address
        implied["members"] = [accounts.test_accounts[place].address for place in range(LOCAL_COMMITTEE_SIZE)]
    chosen = implied | written | {name: value for name, value in options.items() if value}
    for name in ("treasury", "members"):
        if name not in chosen:
            raise ValueError(f"say who is {name}: by option, or in a file given with --config")
    overrides = chosen.pop("parameters", {}) | dict(_setting(text) for text in chosen.pop("settings", ()))
    return {**chosen, "overrides": overrides}


def _setting(text: str) -> tuple[str, int]:
    name, _, value = text.partition("=")
    if not value.isdecimal():
        raise ValueError(f"--set takes NAME=VALUE with a whole number, not {text!r}")
    return name, int(value)
