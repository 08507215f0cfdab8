"""Deploy the contracts with ape: ``ape run deploy --network ethereum:local:foundry``.

Guarantees: runs the plan of ``protocol/chain/deployment.py``, the same that the devnet runs, and writes
the address book last, so that a file means a complete deployment.

On a local network the test accounts serve: the first deploys, owns and holds the tokens, the first four
are the committee. Elsewhere everything is named, by options or in a TOML file given with ``--config``:

    members = ["0x…", "0x…", "0x…", "0x…"]
    threshold = 3
    treasury = "0x…"
    guardian = "0x…"
    [parameters]
    update_s = 600
    [governance]
    quorum_percent = 4

Elsewhere a DAO governs, with the periods of ``[governance]``, unless an owner is named; on a local network
the deployer owns everything unless ``--governed`` asks for a DAO.

An account of ape's own is unlocked once and asked about the whole plan, not about each transaction: its
passphrase is prompted for, or comes from ``APE_ACCOUNTS_<alias>_PASSPHRASE``; ``--yes`` asks nothing.

Source: design section 5; docs/toolchain.md for BSC testnet.
"""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path
from typing import Any

import click
from ape import accounts, chain, networks, project
from ape.api import AccountAPI
from ape.cli import ConnectedProviderCommand
from ape_accounts.accounts import KeyfileAccount

from protocol.chain.deployment import (
    AddressBook,
    Call,
    Creation,
    Governance,
    Plan,
    Reading,
    make_plan,
    resolve,
)

LOCAL_COMMITTEE_SIZE = 4
CONFIG_KEYS = frozenset(
    {"owner", "guardian", "holder", "treasury", "members", "threshold", "parameters", "governance"}
)


@click.command(cls=ConnectedProviderCommand)
@click.option("--account", "alias", help="ape account that deploys; a test account on local networks")
@click.option("--config", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="a TOML file")
@click.option("--member", "members", multiple=True, help="an aggregator's account; repeat for each")
@click.option("--threshold", type=int, help="signatures a settlement needs; n - f by default")
@click.option("--treasury", help="who receives fines")
@click.option("--owner", help="one account that decides instead of a DAO")
@click.option("--governed", is_flag=True, help="a DAO decides, on a local network too")
@click.option("--guardian", help="who may pause payouts; nobody by default")
@click.option("--holder", help="who receives the token supply; the deployer by default")
@click.option("--yes", is_flag=True, help="deploy without asking once more")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="a parameter's value")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar="DTN_ADDRESSES",
    help="where to write the address book; build/addresses-<chain id>.json by default",
)
def cli(alias: str | None, config: Path | None, output: Path | None, yes: bool, **options: Any) -> None:
    """Deploy and wire the contracts, and write the address book."""
    deployer = accounts.load(alias) if alias else _local_deployer()
    try:
        arguments = _arguments(deployer, config, options)
        plan = make_plan(**arguments)
    except (ValueError, tomllib.TOMLDecodeError) as reason:
        raise click.UsageError(str(reason)) from reason
    target = output or Path("build") / f"addresses-{networks.provider.chain_id}.json"
    if isinstance(deployer, KeyfileAccount):
        _agree(deployer, plan, arguments, target, yes)
    book = deploy(deployer, plan)
    book.write(target)
    click.echo(f"deployed on chain {book.chain_id}; addresses in {target}")


def _agree(deployer: KeyfileAccount, plan: Plan, arguments: dict[str, Any], target: Path, yes: bool) -> None:
    """Show what is about to be done for good, ask once, and unlock the account for it."""
    decides = arguments.get("owner") or "a DAO of the token's holders"
    transactions = sum(not isinstance(step, Reading) for step in plan.steps)
    click.echo(f"chain {networks.provider.chain_id}: {transactions} transactions from {deployer.address}")
    click.echo(f"contracts  {', '.join(plan.contracts.values())}")
    click.echo(f"decides    {decides}")
    click.echo(f"committee  {len(arguments['members'])}: {', '.join(map(str, arguments['members']))}")
    click.echo(f"signatures {arguments.get('threshold') or 'all but a third'} for a settlement")
    click.echo(f"treasury   {arguments['treasury']}, guardian {arguments.get('guardian') or 'nobody'}")
    click.echo(f"supply to  {arguments['holder']}")
    for name, value in sorted(arguments["overrides"].items()):
        click.echo(f"parameter  {name} = {value}")
    click.echo(f"addresses  go to {target}")
    if not yes:
        click.confirm("Deploy?", abort=True)
    deployer.set_autosign(True)


def deploy(deployer: AccountAPI, plan: Plan) -> AddressBook:
    """Run ``plan`` on the connected network."""
    contracts: dict[str, Any] = {}
    addresses: dict[str, str] = {}
    first_block = chain.blocks.head.number + 1
    for step in plan.steps:
        match step:
            case Creation():
                container = getattr(project, step.contract)
                instance = deployer.deploy(container, *resolve(step.arguments, addresses))
                contracts[step.name] = instance
                addresses[step.name] = str(instance.address)
            case Call():
                call = getattr(contracts[step.target], step.method)
                call(*resolve(step.arguments, addresses), sender=deployer)
            case Reading():
                addresses[step.name] = str(getattr(contracts[step.target], step.method)())
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
    implied: dict[str, Any] = {"holder": deployer.address}
    if networks.provider.network.is_local:
        implied["treasury"] = accounts.test_accounts[LOCAL_COMMITTEE_SIZE].address
        implied["members"] = [accounts.test_accounts[place].address for place in range(LOCAL_COMMITTEE_SIZE)]
    chosen = implied | written | {name: value for name, value in options.items() if value}
    for name in ("treasury", "members"):
        if name not in chosen:
            raise ValueError(f"say who is {name}: by option, or in a file given with --config")
    overrides = chosen.pop("parameters", {}) | dict(_setting(text) for text in chosen.pop("settings", ()))
    periods, governed = chosen.pop("governance", {}), chosen.pop("governed", False)
    if "owner" not in chosen and networks.provider.network.is_local and not (governed or periods):
        chosen["owner"] = deployer.address
    if "owner" not in chosen:
        chosen["governance"] = _governance(periods)
    elif governed or periods:
        raise ValueError("an owner and a DAO exclude each other: leave one out")
    return {**chosen, "overrides": overrides}


def _governance(periods: dict[str, Any]) -> Governance:
    known = {field.name for field in dataclasses.fields(Governance)}
    wrong = sorted(name for name, value in periods.items() if name not in known or not isinstance(value, int))
    if wrong:
        raise ValueError(
            f"[governance] sets {', '.join(wrong)}; whole numbers for {', '.join(sorted(known))}"
        )
    return Governance(**periods)


def _setting(text: str) -> tuple[str, int]:
    name, _, value = text.partition("=")
    if not value.isdecimal():
        raise ValueError(f"--set takes NAME=VALUE with a whole number, not {text!r}")
    return name, int(value)
