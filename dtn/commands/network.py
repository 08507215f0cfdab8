"""``dtn network create``: the network file of a deployment, made from its address book and its chain."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dtn.output import JsonFlag, console, print_json, write_output
from offchain.committee import read_committee
from offchain.network import NetworkError, NetworkFile
from protocol.chain.client import ChainClient, connect
from protocol.chain.deployment import AddressBook

app = typer.Typer(help="Describe a network to those who use it.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Describe a network to those who use it."""


@app.command()
def create(
    rpc: Annotated[str, typer.Option(help="A node of the chain that users of the file may ask.")],
    addresses: Annotated[Path, typer.Option(help="Address book that `ape run deploy` wrote.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write the network file.")],
    as_json: JsonFlag = False,
) -> None:
    """Write the network file: chain, contracts, and the APIs that the committee's members registered."""
    book = AddressBook.read(addresses)
    committee = read_committee(ChainClient(connect(rpc, book.chain_id), book))
    if len(committee.apis) < committee.enough:
        raise NetworkError(
            f"{len(committee.apis)} of {committee.size} members have registered an API and users need "
            f"{committee.enough}: run `dtn aggregator register` for them first; nothing was written"
        )
    file = NetworkFile(rpc_url=rpc, address_book=book, aggregators=committee.apis)
    write_output(output, file.model_dump_json(indent=2) + "\n")
    if as_json:
        print_json({"path": str(output), "members": committee.size, "aggregators": list(committee.apis)})
        return
    console.print(f"{output}: {len(committee.apis)} of {committee.size} members' APIs", soft_wrap=True)
