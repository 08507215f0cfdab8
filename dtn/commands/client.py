"""``dtn client run|webhook|prepare``: the client's daemon, and what a wallet needs to place an order."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from dtn.commands.orders import ConfigOption, client_of, gateway_of
from dtn.commands.staking import Config
from dtn.output import JsonFlag, console, print_json
from offchain.config import ClientConfig, InvalidConfig
from protocol.transactions import data_root

app = typer.Typer(help="Look after your own orders.", no_args_is_help=True)


@app.command()
def run(config: Config) -> None:
    """Publish data and release test sets of your orders until told to stop."""
    from offchain.client import ClientDaemon

    ClientDaemon(ClientConfig.read(config)).run()


@app.command()
def webhook(config: Config) -> None:
    """Try the webhook of the configuration, and make its secret if there is none yet."""
    from offchain.client.webhooks import Message, Webhooks, make_secret, read_secret

    settings = ClientConfig.read(config)
    url, path = settings.webhook_url, settings.webhook_secret_file
    if url is None or path is None:
        raise InvalidConfig(f"{config} names no webhook_url and webhook_secret_file; set both")
    if not path.exists():
        make_secret(path)
        console.print(f"made a secret in {path}: the receiver checks signatures with it", soft_wrap=True)
    hooks = Webhooks(url, read_secret(path), settings.data_dir / "webhooks")
    said = hooks.post(Message.about("ping", "0x" + bytes(32).hex(), 0, {}, time.time()))
    if said is not None:
        raise InvalidConfig(f"{url} did not take the message: {said}")
    console.print(f"{url} took a message signed with {path}", soft_wrap=True)


@app.command()
def prepare(
    task: Annotated[Path, typer.Argument(help="Task file (YAML); see examples/.")],
    config: ConfigOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Prepare a task's data for an order that a wallet places (scripts/put.py)."""
    from offchain.client import read_task_file

    client, settings = client_of(config)
    prepared = client.prepare(read_task_file(task), gateway=gateway_of(settings))
    task_hash = "0x" + prepared.document.digest().hex()
    root = "0x" + data_root(prepared.document.fragment_digests()).hex()
    if as_json:
        print_json({"task_link": prepared.link, "task_hash": task_hash, "data_root": root})
        return
    console.print(f"task link {prepared.link}", soft_wrap=True)
    console.print(f"task hash {task_hash}", soft_wrap=True)
    console.print(f"data root {root}", soft_wrap=True)
    console.print("keep `dtn client run` running, and place the order with this account's key")
