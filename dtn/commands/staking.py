"""Staking as any role: what the commands of actors and aggregators share, and say of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

import typer

from dtn.output import console, print_json, tokens, wei
from protocol.chain.client import ChainClient, connect
from protocol.chain.deployment import AddressBook
from protocol.errors import ChainError
from protocol.roles import Role
from protocol.signer import Signer

Config = Annotated[Path, typer.Option("--config", help="The role's TOML file.", exists=False)]
Amount = Annotated[str | None, typer.Option(help="Tokens; the least allowed (or all of it) if not given.")]

ABANDON_HELP: Final = (
    "Declare the committee gone, if it has not released your stake long after it was due; everybody may then "
    "leave without it."
)


def unregister_help(name: str) -> str:
    """What ``dtn ROLE unregister`` says of itself."""
    return f"Start to take stake out; it is released after the unbonding time (then `{name} withdraw`)."


def chain_at(rpc_url: str, book: AddressBook, signer: Signer | None = None) -> ChainClient:
    """The contracts of a network; raises `ChainError` if the node does not answer or is of another chain."""
    return ChainClient(connect(rpc_url, book.chain_id), book, signer)


def register(
    chain: ChainClient,
    account: bytes,
    role: Role,
    stake: str | None,
    as_json: bool,
    *,
    reached_at: tuple[str, bytes] | None = None,
) -> None:
    """Stake tokens, the least that the role allows if no amount is given.

    Args:
        reached_at: endpoint and link key. One account may hold several roles; without it, where the account
            is reached stays as it is.
    """
    amount = wei(stake) if stake else chain.parameter(role.parameter)
    endpoint, link_key = reached_at or chain.endpoint_of(account)
    receipt = chain.register(role, amount, endpoint, link_key)
    _say(as_json, receipt, f"staked {tokens(amount)} tokens as {role.name.lower()}", amount, account)


def unregister(chain: ChainClient, account: bytes, role: Role, amount: str | None, as_json: bool) -> None:
    """Ask stake back, all of it if no amount is given."""
    bonded, _, _ = chain.stake_of(account, role)
    chosen = wei(amount) if amount else bonded
    if bonded < chosen or not chosen:
        raise ChainError(
            f"0x{account.hex()} has {tokens(bonded)} tokens staked as {role.name.lower()}"
            + (f", not {tokens(chosen)}" if chosen else ": there is nothing to unregister")
        )
    receipt = chain.request_unstake(role, chosen)
    _say(as_json, receipt, f"unbonding {tokens(chosen)} tokens as {role.name.lower()}", chosen, account)


def withdraw(chain: ChainClient, account: bytes, role: Role, as_json: bool) -> None:
    """Take released stake home."""
    bonded, unbonding, withdrawable = chain.stake_of(account, role)
    if chain.abandoned():
        withdrawable += bonded + unbonding
    if not withdrawable:
        raise ChainError(
            f"no stake as {role.name.lower()} is released yet: `unregister` first, then wait for the "
            "unbonding time and a settlement"
        )
    receipt = chain.withdraw(role)
    _say(as_json, receipt, f"withdrew {tokens(withdrawable)} tokens", withdrawable, account)


def abandon(chain: ChainClient, account: bytes, role: Role, as_json: bool) -> None:
    """Declare the committee gone."""
    receipt = chain.abandon(account, role)
    _say(as_json, receipt, "the network is abandoned: `withdraw` takes your whole stake home", 0, account)


def _say(as_json: bool, receipt: Any, text: str, amount: int, account: bytes) -> None:
    if as_json:
        print_json(
            {
                "account": "0x" + account.hex(),
                "amount_wei": str(amount),
                "tx": "0x" + bytes(receipt["transactionHash"]).hex(),
                "gas_used": int(receipt["gasUsed"]),
            }
        )
    else:
        console.print(text)
