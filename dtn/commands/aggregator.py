"""``dtn aggregator``: run a member of the committee, stake for it, change its link key; see also `backup`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dtn.commands import backup, staking
from dtn.commands.staking import Amount, Config
from dtn.output import JsonFlag, console, print_json
from protocol.chain.client import ChainClient
from protocol.errors import ChainError
from protocol.roles import Role

app = typer.Typer(help="Run a member of the committee.", no_args_is_help=True)
ROLE = Role.AGGREGATOR


@app.command()
def run(config: Config) -> None:
    """Run an aggregator until it is told to stop."""
    from aggregator.config import AggregatorConfig
    from aggregator.service import run as serve

    serve(AggregatorConfig.read(config))


@app.command()
def register(
    config: Config,
    stake: Amount = None,
    endpoint: Annotated[
        str | None,
        typer.Option(help="tcp://… link address, comma, http://… API; from the file if not given."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Stake tokens as aggregator and publish where the others and the public reach it."""
    from aggregator.config import AggregatorConfig
    from aggregator.links.keys import LinkKey

    settings = AggregatorConfig.read(config)
    where = endpoint or f"{settings.link_listen},http://{settings.api_host}:{settings.api_port}"
    key = settings.key()
    chain = staking.chain_at(settings.rpc_url, settings.book(), key)
    link_key = LinkKey.registered(key, chain.endpoint_of(key.address)[1])
    staking.register(chain, key.address, ROLE, stake, as_json, reached_at=(where, link_key.public))


@app.command(name="rotate-link")
def rotate_link(config: Config, as_json: JsonFlag = False) -> None:
    """Register another link key; a running aggregator and the others take it up by themselves."""
    from aggregator.config import AggregatorConfig
    from aggregator.links.keys import LinkKey

    settings = AggregatorConfig.read(config)
    key = settings.key()
    chain = staking.chain_at(settings.rpc_url, settings.book(), key)
    endpoint, before = chain.endpoint_of(key.address)
    if not endpoint:
        raise ChainError("this account has registered no endpoint; run `dtn aggregator register` first")
    link_key = LinkKey.after(key, before)
    receipt = chain.set_endpoint(endpoint, link_key.public)
    if as_json:
        tx = "0x" + bytes(receipt["transactionHash"]).hex()
        print_json({"link_key": "0x" + link_key.public.hex(), "before": "0x" + before.hex(), "tx": tx})
        return
    console.print(f"the link key is 0x{link_key.public.hex()} now, and 0x{before.hex()} no more")
    console.print("the members take it up within some ten seconds; see `dtn doctor` and `dtn status`")


backup.extend(app)


@app.command(help=staking.unregister_help("aggregator"))
def unregister(config: Config, amount: Amount = None, as_json: JsonFlag = False) -> None:
    """Ask stake back."""
    chain, account = _chain_of(config)
    staking.unregister(chain, account, ROLE, amount, as_json)


@app.command()
def withdraw(config: Config, as_json: JsonFlag = False) -> None:
    """Take released stake home."""
    chain, account = _chain_of(config)
    staking.withdraw(chain, account, ROLE, as_json)


@app.command(help=staking.ABANDON_HELP)
def abandon(config: Config, as_json: JsonFlag = False) -> None:
    """Declare the committee gone."""
    chain, account = _chain_of(config)
    staking.abandon(chain, account, ROLE, as_json)


def _chain_of(config: Path) -> tuple[ChainClient, bytes]:
    from aggregator.config import AggregatorConfig

    settings = AggregatorConfig.read(config)
    key = settings.key()
    return staking.chain_at(settings.rpc_url, settings.book(), key), key.address
