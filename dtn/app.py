"""The command tree of ``dtn``. Each command is a thin function in `dtn.commands`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Final

import typer

from dtn.commands import (
    aggregator,
    client,
    dao,
    data,
    demo,
    devnet,
    doctor,
    init,
    key,
    network,
    orders,
    owner,
    predict,
    provider,
    roles,
    storage,
    top,
)
from protocol import tracing
from protocol.logs import configure

app = typer.Typer(
    name="dtn",
    help="DTN, a decentralised training network: order models, train them, check them, get paid.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

for role in roles.ROLES:
    commands = roles.role_app(role)
    if role == "provider":
        provider.extend(commands)
    app.add_typer(commands, name=role)
app.add_typer(aggregator.app, name="aggregator")
app.add_typer(client.app, name="client")
app.add_typer(key.app, name="key")
app.add_typer(network.app, name="network")
app.add_typer(devnet.app, name="devnet")
app.add_typer(dao.app, name="dao")
app.add_typer(owner.app, name="owner")
app.add_typer(data.app, name="data")
app.add_typer(storage.app, name="storage")
COMMANDS: Sequence[Callable[..., None]] = (
    demo.demo,
    init.init,
    doctor.doctor,
    orders.put,
    orders.get,
    predict.predict,
    orders.orders,
    orders.order,
    orders.account,
    orders.claim,
    orders.cancel,
    orders.reclaim,
    orders.nodes,
    orders.node,
    orders.status,
    top.top,
)
for command in COMMANDS:
    app.command()(command)


TRACED: Final[Mapping[str, str]] = {
    **{role: role for role in (*roles.ROLES, "client", "aggregator")},
    **dict.fromkeys(("put", "get", "cancel", "demo"), "client"),
}
"""The role whose part of an order's life a command does."""


@app.callback()
def settings(
    context: typer.Context,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what happens, with reasons.")] = False,
    log_format: Annotated[
        str | None, typer.Option(help="text, or json for machines; by default $DTN_LOG_FORMAT or text.")
    ] = None,
) -> None:
    """Options of every command."""
    configure("DEBUG" if verbose else None, log_format)
    role = TRACED.get(context.invoked_subcommand or "")
    if role is not None:
        context.call_on_close(tracing.stop)
        tracing.start(role)
