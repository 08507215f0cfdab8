"""``dtn dao``: what holders of tokens decide about parameters, the committee and the guardian."""

from __future__ import annotations

import datetime
import itertools
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Final

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
from dtn.output import BadAmount, JsonFlag, console, parse_id, print_json, table, tokens, wei
from offchain.economics import bound_of, fetch_history, fetch_settlements, margin_of
from protocol.chain.dao import CHOICES, Dao, Proposal
from protocol.parameters import PARAMETERS

app = typer.Typer(help="Propose, vote, execute: how the network's rules change.", no_args_is_help=True)

LEAST_DIGITS: Final = 8
"""Hex digits that tell a proposal from all others, for all practical purposes."""

Number = Annotated[str, typer.Argument(help="The proposal's number, or how it begins, as `list` shows it.")]


def _open(config: Path | None, signer: str | None = None, account: str | None = None) -> tuple[Dao, bytes]:
    """The DAO as a client's account uses it, and that account."""
    client, settings = client_of(config, signer, account)
    return Dao(client.chain()), settings.address


@app.command(name="list")
def list_proposals(
    limit: Annotated[int, typer.Option(min=1, help="How many, the latest first.")] = 20,
    config: ConfigOption = None,
    signer: SignerOption = None,
    account: AccountOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Show proposals: what each does, where it stands, how the votes are."""
    dao, own = _open(config, signer, account)
    found = list(itertools.islice(dao.proposals(), limit))
    if as_json:
        print_json({"votes_wei": str(dao.votes_of(own)), "proposals": [_as_json(p) for p in found]})
        return
    table(
        "proposals",
        ("number", "state", "does", "for", "against", "abstain", "quorum", "votes until", "executable from"),
        [
            (
                f"{each.number:x}"[:12],
                each.state,
                "\n".join(each.says),
                tokens(each.votes_for),
                tokens(each.votes_against),
                tokens(each.votes_abstain),
                tokens(each.quorum),
                _clock(each.votes_until),
                _clock(each.executable_from) if each.executable_from else None,
            )
            for each in found
        ],
    )
    console.print(f"you have {tokens(dao.votes_of(own))} votes; `dtn dao delegate` turns tokens into votes")


@app.command()
def parameters(config: ConfigOption = None, as_json: JsonFlag = False) -> None:
    """Show every parameter that can be voted on, with its bounds."""
    client, _ = client_of(config)
    values = client.chain().read_parameters()
    if as_json:
        print_json({name: str(values[name]) for name in sorted(PARAMETERS)})
        return
    rows = [(name, values[name], rule.low, rule.high, rule.meaning) for name, rule in PARAMETERS.items()]
    table("parameters", ("name", "value", "least", "most", "meaning"), rows)


@app.command()
def delegate(
    to: Annotated[
        str | None, typer.Argument(metavar="[ACCOUNT]", help="Who votes with your tokens; yourself.")
    ] = None,
    config: ConfigOption = None,
    signer: SignerOption = None,
    account: AccountOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Turn your tokens into votes, in time before a vote begins."""
    dao, own = _open(config, signer, account)
    chosen = own if to is None else parse_id(to, 20, "an address")
    dao.delegate(chosen)
    votes = dao.votes_of(chosen)
    if as_json:
        print_json({"account": "0x" + chosen.hex(), "votes_wei": str(votes)})
        return
    console.print(f"0x{chosen.hex()} has {tokens(votes)} votes now", soft_wrap=True)


@app.command()
def propose(
    description: Annotated[str, typer.Option(help="Why; it is public for ever.")],
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
    """Put a change to the vote."""
    dao, _ = _open(config, signer, account)
    actions = actions_of(dao, settings, members, replace, threshold, guardian, unpause)
    proposal = dao.propose(actions, description)
    if as_json:
        print_json(_as_json(proposal))
        return
    console.print(f"proposal {proposal.number:x}: {'; '.join(proposal.says)}", soft_wrap=True)
    console.print(f"votes from {_clock(proposal.votes_from)} to {_clock(proposal.votes_until)}")


@app.command()
def vote(
    number: Number,
    choice: Annotated[str, typer.Argument(help="for, against or abstain")],
    config: ConfigOption = None,
    signer: SignerOption = None,
    account: AccountOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Vote with the votes that you had when the vote began."""
    if choice not in CHOICES:
        raise BadAmount(f"vote {', '.join(CHOICES)}, not {choice!r}")
    dao, _ = _open(config, signer, account)
    chosen = _find(dao, number)
    dao.vote(chosen, choice)
    _show(dao.refreshed(chosen), as_json)


@app.command()
def report(
    coin_price: Annotated[str, typer.Option(help="What one of the chain's coins costs, in tokens.")],
    config: ConfigOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Show whether the tax pays for the gas of settlements, and what a dishonest majority could take."""
    client, _ = client_of(config)
    chain, network = client.chain(), client.network
    price = chain.gas_price_wei()
    found = margin_of(fetch_settlements(network), fetch_history(network), price, wei(coin_price))
    bound = bound_of(chain)
    if as_json:
        print_json(
            {name: str(value) for name, value in asdict(found).items()}
            | {
                "committee": {name: str(value) for name, value in asdict(bound).items()}
                | {"cover_bps": bound.cover_bps},
                "gas_price_wei": str(price),
                "margin_wei": str(found.margin_wei),
                "margin_bps": found.margin_bps,
            }
        )
        return
    share = "–" if found.margin_bps is None else f"{found.margin_bps / 100:.1f} % of the tax"
    sign = "-" if found.margin_wei < 0 else ""
    rows = [
        ("settlements, orders in them", f"{found.settlements}, {found.orders}"),
        ("gas per order", found.gas_per_order),
        (f"gas at {price / 10**9:g} gwei and {coin_price} tokens a coin", f"{tokens(found.gas_wei)} tokens"),
        ("tax", f"{tokens(found.tax_wei)} tokens"),
        ("left to the aggregators", f"{sign}{tokens(abs(found.margin_wei))} tokens, {share}"),
    ]
    table("what the tax pays for", ("", ""), rows)
    cover = "–" if bound.cover_bps is None else f"{bound.cover_bps / 100:.1f} %"
    rows = [
        (f"stake of the cheapest {bound.threshold} of {bound.members}", f"{tokens(bound.stake_wei)} tokens"),
        ("within their reach: escrows and stakes", f"{tokens(bound.reach_wei)} tokens"),
        ("the one over the other", cover),
    ]
    table("what the committee is trusted with", ("", ""), rows)


@app.command()
def pause(
    config: ConfigOption = None,
    signer: SignerOption = None,
    account: AccountOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Stop all payouts for a week: the guardian's emergency brake. No token moves."""
    client, _ = client_of(config, signer, account)
    receipt = client.chain().pause()
    if as_json:
        print_json({"tx": "0x" + bytes(receipt["transactionHash"]).hex(), "gas_used": receipt["gasUsed"]})
        return
    console.print(
        "payouts are paused for a week; `dtn dao propose --unpause` puts an earlier end to the vote"
    )


@app.command()
def execute(
    number: Number,
    config: ConfigOption = None,
    signer: SignerOption = None,
    account: AccountOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Carry a proposal that succeeded on: first into the timelock, and out of it when its delay is over."""
    dao, _ = _open(config, signer, account)
    chosen = _find(dao, number)
    dao.execute(chosen)
    _show(dao.refreshed(chosen), as_json)


def _find(dao: Dao, number: str) -> Proposal:
    """The latest proposal whose number is this, in decimal, or begins so, in hex."""
    begins = number.removeprefix("0x").lower()

    def fits(found: int) -> bool:
        return str(found) == begins or (len(begins) >= LEAST_DIGITS and f"{found:x}".startswith(begins))

    proposal = dao.find(fits)
    if proposal is None:
        raise BadAmount(
            f"no proposal's number begins with {number!r}: give at least {LEAST_DIGITS} hex digits of one "
            "in `dtn dao list`"
        )
    return proposal


def _show(proposal: Proposal, as_json: bool) -> None:
    if as_json:
        print_json(_as_json(proposal))
        return
    then = f", executable from {_clock(proposal.executable_from)}" if proposal.state == "queued" else ""
    console.print(
        f"{proposal.state}{then}: {tokens(proposal.votes_for)} for, "
        f"{tokens(proposal.votes_against)} against, {tokens(proposal.votes_abstain)} abstain, "
        f"quorum {tokens(proposal.quorum)}",
        soft_wrap=True,
    )


def _as_json(proposal: Proposal) -> dict[str, Any]:
    """Numbers of 256 bits as strings, as everywhere."""
    fields = asdict(proposal)
    fields["actions"] = [
        {"target": each.target, "data": "0x" + each.data.hex(), "value_wei": str(each.value_wei)}
        for each in proposal.actions
    ]
    for name in ("number", "votes_for", "votes_against", "votes_abstain", "quorum"):
        fields[name] = str(fields[name])
    return fields


def _clock(time_s: int) -> str:
    return datetime.datetime.fromtimestamp(time_s, tz=datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
