"""The command tree of ``dtn``: each command is a thin function in `dtn.commands`, imported when it is named.

To import all of them takes seconds; to import one of them, what that one needs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup
from typer.main import get_command, get_group

from protocol import tracing
from protocol.logs import configure

WHERE: Final[Mapping[str, str]] = {
    "provider": "provider:app",
    "validator": "roles:validator",
    "verifier": "roles:verifier",
    "aggregator": "aggregator:app",
    "client": "client:app",
    "key": "key:app",
    "network": "network:app",
    "devnet": "devnet:app",
    "dao": "dao:app",
    "owner": "owner:app",
    "data": "data:app",
    "storage": "storage:app",
    "demo": "demo:demo",
    "init": "init:init",
    "doctor": "doctor:doctor",
    "put": "orders:put",
    "get": "orders:get",
    "predict": "predict:predict",
    "orders": "orders:orders",
    "order": "orders:order",
    "account": "orders:account",
    "claim": "orders:claim",
    "cancel": "orders:cancel",
    "reclaim": "orders:reclaim",
    "nodes": "orders:nodes",
    "node": "orders:node",
    "status": "orders:status",
    "top": "top:top",
}
"""By command, its module in `dtn.commands` and its name there: a function, or a group of commands."""


@cache
def loaded(name: str) -> Any:
    """The command of that name, or the group of commands."""
    module, _, attribute = WHERE[name].partition(":")
    found = getattr(import_module(f"dtn.commands.{module}"), attribute)
    if isinstance(found, typer.Typer):
        command: Any = get_group(found)
        command.name = name
        return command
    alone = typer.Typer(add_completion=False)
    alone.command(name=name)(found)
    return get_command(alone)


class Commands(Mapping[str, Any]):
    """All commands, each imported when it is looked up."""

    def __getitem__(self, name: str) -> Any:
        if name not in WHERE:
            raise KeyError(name)
        return loaded(name)

    def __contains__(self, name: object) -> bool:
        return name in WHERE

    def __iter__(self) -> Iterator[str]:
        return iter(WHERE)

    def __len__(self) -> int:
        return len(WHERE)


class Tree(TyperGroup):
    """What ``dtn`` itself is."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = Commands()  # type: ignore[assignment]

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.commands)


app = typer.Typer(
    name="dtn",
    cls=Tree,
    help="DTN, a decentralised training network: order models, train them, check them, get paid.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


TRACED: Final[Mapping[str, str]] = {
    **{role: role for role in ("provider", "validator", "verifier", "client", "aggregator")},
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
