"""Checks of the chain and of the account on it: node, contracts, time, coin, stake, membership."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from eth_utils.address import to_checksum_address

from dtn.doctor.finding import Finding, failed, ok, warning
from dtn.output import tokens
from protocol.chain.client import ChainClient, chain_errors
from protocol.chain.deployment import AddressBook
from protocol.errors import ChainError
from protocol.roles import Role

CONTRACTS: Final = ("parameters", "token", "registry", "orders", "committee", "settlement")
OLD_HEAD_S: Final = 600
"""A block so old: the node has stopped following, or the chain stands still."""
LATE_HEAD_S: Final = 120
AHEAD_S: Final = 30
"""Ethereum's nodes refuse blocks from further in the future than half of this."""
GAS_OF_A_DAY: Final = 5_000_000
"""What an aggregator that settles every hour spends, or a client with ten orders."""


def check_contracts(chain: ChainClient, book: AddressBook) -> Finding:
    """Whether there is code where the address book says that the contracts are."""
    name = "contracts"
    try:
        with chain_errors("cannot read the contracts"):
            empty = [
                f"{what} {address}"
                for what in CONTRACTS
                if not chain.web3.eth.get_code(to_checksum_address(address := getattr(book, what)))
            ]
        if not empty:
            epoch = chain.committee_epoch()
    except (ChainError, ValueError) as reason:
        return failed(name, str(reason), "get the address book of this network from whoever deployed it")
    if empty:
        do = "get the address book of this network, or wait until your node has caught up with the chain"
        return failed(name, f"no contract at {', '.join(empty)}", do)
    return ok(name, f"all {len(CONTRACTS)} are on the chain; the committee is that of epoch {epoch}")


def check_head(chain: ChainClient, now_s: float) -> Finding:
    """Whether the chain node follows its chain, and its blocks' time this machine's."""
    name = "chain lag"
    try:
        number, age_s = chain.block_number(), now_s - chain.time_s()
        with chain_errors("cannot ask whether the node is syncing"):
            syncing = chain.web3.eth.syncing
    except ChainError as reason:
        return failed(name, str(reason), "look at the chain node")
    if not isinstance(syncing, bool):
        return failed(name, f"the node is still catching up, at block {number}", "wait until it has")
    if age_s < -AHEAD_S:
        do = "set this machine's clock with NTP"
        return failed(name, f"block {number} is {-age_s:.0f} s in the future by this machine's clock", do)
    what = f"block {number} is {age_s:.0f} s old"
    if age_s > OLD_HEAD_S:
        return failed(
            name, what, "look at the chain node: it follows no more, or this machine's clock is wrong"
        )
    if age_s > LATE_HEAD_S:
        return warning(name, what, "look at the chain node, if its chain has shorter intervals")
    return ok(name, what)


def check_coin(chain: ChainClient, account: bytes) -> Finding:
    """Whether the account can pay for gas."""
    name = "gas money"
    try:
        have, price = chain.coins_of(account), chain.gas_price_wei()
    except ChainError as reason:
        return failed(name, str(reason), "look at the chain node")
    enough = GAS_OF_A_DAY * price
    what = f"0x{account.hex()} holds {have / 10**18:.6f} of the chain's coin"
    if not have:
        return failed(name, what, "send it some: without it nothing can be registered, ordered or settled")
    if have < enough:
        return warning(name, f"{what}; a day may take {enough / 10**18:.6f}", "send it some more")
    return ok(name, what)


def check_stake(chain: ChainClient, account: bytes, role: Role, command: str) -> Finding:
    """Whether the account has the stake that its work needs."""
    name = "stake"
    try:
        bonded, unbonding, withdrawable = chain.stake_of(account, role)
        need, held = max(1, chain.parameter(role.parameter)), chain.balance_of(account)
    except ChainError as reason:
        return failed(name, str(reason), "look at the chain node")
    what = f"{tokens(bonded)} tokens as {role.name.lower()}, {tokens(need)} are needed"
    if unbonding or withdrawable:
        what += f"; {tokens(unbonding)} unbonding, {tokens(withdrawable)} to withdraw"
    if bonded >= need:
        return ok(name, what)
    lacking = need - bonded
    if held < lacking:
        do = f"send 0x{account.hex()} {tokens(lacking - held)} tokens, then `dtn {command} register`"
    else:
        do = f"`dtn {command} register --config FILE`"
    return failed(name, what, do)


def check_tokens(chain: ChainClient, account: bytes) -> Finding:
    """Whether a client could pay for an order."""
    name = "tokens"
    try:
        held, least = chain.balance_of(account), chain.parameter("min_reward_wei")
    except ChainError as reason:
        return failed(name, str(reason), "look at the chain node")
    what = f"{tokens(held)} tokens; the smallest reward is {tokens(least)}"
    if held < least:
        return warning(name, what, "send it tokens before placing an order; running ones need none")
    return ok(name, what)


def check_membership(
    chain: ChainClient, account: bytes, endpoint: str, is_ours: Callable[[bytes], bool]
) -> Finding:
    """Whether an aggregator is appointed, and registered as it runs.

    ``endpoint`` is what `register` would publish without ``--endpoint``; another one may be right, behind a
    proxy, but the link key must be one of the account's: ``is_ours`` tells.
    """
    name = "committee"
    try:
        member = account in chain.members()
        registered, key = chain.endpoint_of(account)
    except ChainError as reason:
        return failed(name, str(reason), "look at the chain node")
    if not member:
        do = "have whoever owns the contract Committee appoint it (`dtn dao propose --member …`)"
        return failed(name, f"0x{account.hex()} is no member of the committee", do)
    if not is_ours(key):
        do = "`dtn aggregator register`, or `rotate-link`: the others refuse links with another key"
        return failed(name, "the registered link key is not one of this key file's", do)
    if not registered:
        return failed(
            name, "no endpoint is registered: nobody finds this member", "`dtn aggregator register`"
        )
    if registered != endpoint:
        do = f"see that it leads here, or register again: this member listens as {endpoint}"
        return warning(name, f"registered at {registered}", do)
    return ok(name, f"a member, registered at {registered}")
