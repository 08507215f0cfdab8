"""Options that name changes of a network's rules, for ``dtn dao propose`` and ``dtn owner change``."""

from __future__ import annotations

from typing import Annotated

import typer

from dtn.output import BadAmount, parse_id
from protocol.chain.changes import Action, Changes

Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A parameter; repeat for more.")
]
Members = Annotated[
    list[str] | None, typer.Option("--member", help="A member of the new committee; repeat for each.")
]
Replace = Annotated[
    str | None,
    typer.Option(metavar="OLD=NEW", help="A member's account, and the one to take its place; one at a time."),
]
Threshold = Annotated[int | None, typer.Option(help="Signatures that a settlement needs; n - f by default.")]
Guardian = Annotated[str | None, typer.Option(help="Who may pause payouts from then on.")]
Unpause = Annotated[bool, typer.Option("--unpause", help="End a pause of payouts early.")]


def actions_of(
    changes: Changes,
    settings: list[str] | None,
    members: list[str] | None,
    replace: str | None,
    threshold: int | None,
    guardian: str | None,
    unpause: bool,
) -> list[Action]:
    """The calls that the options ask for.

    Raises:
        BadAmount: an option cannot be read, or contradicts another. ChainError: a change that cannot be.
    """
    actions = [changes.set_parameter(*_setting(text)) for text in settings or ()]
    if members and replace is not None:
        raise BadAmount("name the whole committee with --member, or one change with --replace, not both")
    if replace is not None:
        old, _, new = replace.partition("=")
        actions.append(
            changes.replace_member(parse_id(old, 20, "an address"), parse_id(new, 20, "an address"))
        )
    if members:
        actions.append(changes.appoint([parse_id(each, 20, "an address") for each in members], threshold))
    elif threshold is not None:
        raise BadAmount("a threshold goes with the committee's members: name them all with --member")
    if guardian is not None:
        actions.append(changes.set_guardian(parse_id(guardian, 20, "an address")))
    if unpause:
        actions.append(changes.unpause())
    return actions


def _setting(text: str) -> tuple[str, int]:
    name, _, value = text.partition("=")
    if not value.isdecimal():
        raise BadAmount(f"--set takes NAME=VALUE with a whole number, not {text!r}")
    return name, int(value)
