"""What the chain's part costs: gas of settlements, claims, orders and registrations, from receipts on Anvil.

    python -m benchmarks.gas [--committee 30] [--signers 30] [--accounts 1,10,100,1000] [--json]

A deployment of its own; all transactions are sent by the product's client. Each settlement consumes one order
of 1,050 tokens and credits all of it, unevenly, to so many accounts, with the signatures of so many members;
one settlement goes before, since the first of a deployment writes slots that stay. One of the accounts then
claims: its first claim, to an account that never held a token, and another one a settlement later.

The price of the chain's coin and of its gas are those of PoT's table 6 (June 2023), beside whose 1.87 dollars
per credited account ours stands.

Source: PoT section 4.2 and table 6; design section 12.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from eth_account import Account
from eth_account.messages import encode_typed_data
from eth_utils.address import to_checksum_address
from rich.console import Console
from rich.table import Table
from web3 import Web3

from dtn.devnet.anvil import running_anvil
from protocol import merkle
from protocol.chain.client import ChainClient, order_tuple
from protocol.chain.deployment import deploy, make_plan
from protocol.crypto import Key, keccak256, sha256
from protocol.parameters import TOKEN_WEI
from protocol.roles import Role
from protocol.transactions import Order, Report
from protocol.typed_data import digest_of

GAS_PRICE_GWEI: Final = 4.562
COIN_DOLLARS: Final = 246.2
PAPER_GAS: Final = 86_875 + 30 * 45_371 + 161_888
"""proposeReward, 30 times confirmReward, executeReward: one account's reward in PoT's table 6."""
PAPER_DOLLARS: Final = 1.87
"""As the paper has it; its own gas and prices give 1.81."""
REWARD_WEI, DEPOSIT_WEI = 1_000 * TOKEN_WEI, 50 * TOKEN_WEI
COIN_WEI: Final = 10**24


@dataclass
class Market:
    """A deployed network: its client puts orders, its committee settles them."""

    web3: Web3
    members: list[Key]
    signers: int
    client: ChainClient
    key: Key
    nonce: int = 0

    @classmethod
    def deploy(cls, web3: Web3, committee: int, signers: int) -> Market:
        """Contracts, a committee of so many, and a client with tokens."""
        owner = Key(sha256(b"owner"))
        fund(web3, owner)
        members = sorted((Key(sha256(b"member %d" % n)) for n in range(committee)), key=lambda k: k.address)
        plan = make_plan(
            owner=owner.address,
            holder=owner.address,
            treasury=Key(sha256(b"treasury")).address,
            members=[key.address for key in members],
        )
        book = deploy(web3, Account.from_key(owner.secret), plan)
        return cls(web3, members, signers, ChainClient(web3, book, owner), owner)

    def order(self) -> Order:
        """The next order, of the default windows."""
        self.nonce += 1
        return Order(
            client=self.key.address,
            nonce=self.nonce,
            kind="open",
            reward=REWARD_WEI,
            deposit=DEPOSIT_WEI,
            train_window=3_600,
            validate_window=600,
            challenge_window=600,
            task_hash=sha256(b"task"),
            task_link="http://127.0.0.1:8000/ipfs/bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy",
            data_root=sha256(b"data"),
            baseline=-2_302_585,
        )

    def settle(self, earned: list[tuple[bytes, int]]) -> Any:
        """Put an order and settle it with these earned, ascending by account; the settlement's receipt."""
        order = self.order()
        self.client.put(order)
        report = Report(
            epoch=self.client.last_epoch() + 1,
            committee_epoch=self.client.committee_epoch(),
            orders=digest_of(self.client.domain, order),
            slashes=b"",
            releases=b"",
            credits=b"".join(account + amount.to_bytes(12, "big") for account, amount in earned),
        )
        digest = digest_of(self.client.domain, report)
        signatures = b"".join(key.sign(digest) for key in self.members[: self.signers])
        return self.client.settle(report, 2**self.signers - 1, signatures)

    def claim(self, earned: list[tuple[bytes, int]], account: bytes, epochs: Sequence[int]) -> int:
        """Gas of a claim of these epochs, which all had the same credits."""
        place = [each for each, _ in earned].index(account)
        proof = merkle.proof([merkle.credit_leaf(each, amount) for each, amount in earned], place)
        amount = earned[place][1]
        count = len(epochs)
        receipt = self.client.claim(account, epochs, [amount] * count, [proof] * count)
        return int(receipt["gasUsed"])


def fund(web3: Web3, key: Key) -> None:
    """Coins for gas."""
    web3.provider.make_request("anvil_setBalance", [to_checksum_address(key.address), hex(COIN_WEI)])  # type: ignore[arg-type]


def earnings(count: int) -> list[tuple[bytes, int]]:
    """One order's escrow shared unevenly, to the base unit, ascending by account."""
    total = REWARD_WEI + DEPOSIT_WEI
    share = total // (2 * count)
    accounts = sorted(keccak256(b"earner %d of %d" % (place, count))[12:] for place in range(count))
    amounts = [share + int.from_bytes(keccak256(account)[:8], "big") % share for account in accounts[1:]]
    return list(zip(accounts, [total - sum(amounts), *amounts], strict=True))


def settlements(market: Market, counts: Sequence[int]) -> list[dict[str, Any]]:
    """Gas of a settlement and of two claims, per number of credited accounts."""
    market.settle(earnings(1))
    results = []
    for count in counts:
        earned = earnings(count)
        account = earned[count // 2][0]
        gas = int(market.settle(earned)["gasUsed"])
        first = market.claim(earned, account, [market.client.last_epoch()])
        market.settle(earned)
        repeat = market.claim(earned, account, [market.client.last_epoch()])
        results.append(
            {
                "accounts": count,
                "settlement_gas": gas,
                "gas_per_account": round(gas / count, 1),
                "claim_gas_first": first,
                "claim_gas_repeat": repeat,
            }
        )
    return results


def others(market: Market) -> dict[str, int]:
    """Gas of what clients and nodes send besides."""
    chain, gas = market.client, {}
    earned = earnings(100)
    for _ in range(10):
        market.settle(earned)
    last = chain.last_epoch()
    gas["claim_of_10_epochs"] = market.claim(earned, earned[7][0], range(last - 9, last + 1))

    def spent(name: str, receipt: Any) -> None:
        gas[name] = int(receipt["gasUsed"])

    order = market.order()
    amount = order.reward + order.deposit
    spent("approve", chain.send(chain.token.functions.approve(chain.book.orders, amount), "approving"))
    spent("put", chain.send(chain.orders.functions.put(order_tuple(order)), "putting"))
    order = market.order()
    spent("put_with_permit", chain.send(permitted(market, order, amount), "putting"))
    provider = Key(sha256(b"provider"))
    fund(market.web3, provider)
    chain.send(chain.token.functions.transfer(to_checksum_address(provider.address), 10**22), "funding")
    node = ChainClient(market.web3, chain.book, provider)
    spent("register", node.register(Role.PROVIDER, 200 * TOKEN_WEI, "http://192.0.2.1:8000", sha256(b"link")))
    spent("register_more", node.register(Role.PROVIDER, TOKEN_WEI, "http://192.0.2.1:8000", sha256(b"link")))
    spent("unregister", node.request_unstake(Role.PROVIDER, 201 * TOKEN_WEI))
    return gas


def permitted(market: Market, order: Order, amount: int) -> Any:
    """`OrderBook.putWithPermit`: no approval goes before it."""
    chain, owner = market.client, to_checksum_address(market.key.address)
    permit = {
        "owner": owner,
        "spender": to_checksum_address(chain.book.orders),
        "value": amount,
        "nonce": chain.token.functions.nonces(owner).call(),
        "deadline": 2**40,
    }
    kinds = {"owner": "address", "spender": "address", "value": "uint256", "nonce": "uint256"}
    fields = [{"name": name, "type": kind} for name, kind in (kinds | {"deadline": "uint256"}).items()]
    domain = {
        "name": chain.token.functions.name().call(),
        "version": "1",
        "chainId": chain.book.chain_id,
        "verifyingContract": to_checksum_address(chain.book.token),
    }
    message = encode_typed_data(domain, {"Permit": fields}, permit)
    signed = Account.from_key(market.key.secret).sign_message(message)
    r, s = (number.to_bytes(32, "big") for number in (signed.r, signed.s))
    return chain.orders.functions.putWithPermit(order_tuple(order), permit["deadline"], signed.v, r, s)


def price(gas: float) -> tuple[float, float]:
    """BNB and dollars at the prices of PoT's table 6."""
    coins = gas * GAS_PRICE_GWEI / 1e9
    return coins, coins * COIN_DOLLARS


def measure(committee: int, signers: int, counts: Sequence[int]) -> dict[str, Any]:
    """All figures; gas is exact, and the same in every run but for the zero bytes of signatures."""
    with running_anvil() as (web3, _):
        market = Market.deploy(web3, committee, signers)
        results = settlements(market, counts)
        sent = others(market)
    for result in results:
        coins, dollars = price(result["gas_per_account"] + result["claim_gas_first"])
        result["dollars_per_account"] = round(price(result["gas_per_account"])[1], 5)
        result["dollars_with_claim"] = round(dollars, 4)
        result["bnb_with_claim"] = round(coins, 8)
    return {
        "config": {
            "committee": committee,
            "signers": signers,
            "gas_price_gwei": GAS_PRICE_GWEI,
            "coin_dollars": COIN_DOLLARS,
        },
        "results": results,
        "transactions": sent,
        "paper": {"gas_per_account": PAPER_GAS, "dollars_per_account": PAPER_DOLLARS},
    }


def show(figures: dict[str, Any]) -> None:
    """The figures as tables."""
    console, config = Console(), figures["config"]
    title = (
        f"{config['signers']} of {config['committee']} sign; {GAS_PRICE_GWEI} gwei, {COIN_DOLLARS} dollars"
    )
    columns = ("accounts", "settlement", "per account", "first claim", "later claim", "$", "$ with claim")
    table = Table(*columns, title=title)
    for each in figures["results"]:
        table.add_row(*(str(value) for name, value in each.items() if name != "bnb_with_claim"))
    console.print(table)
    table = Table("transaction", "gas", "$")
    for name, gas in figures["transactions"].items():
        table.add_row(name.replace("_", " "), str(gas), f"{price(gas)[1]:.3f}")
    console.print(table)
    paper = figures["paper"]
    console.print(
        f"PoT, table 6: {paper['gas_per_account']} gas, {paper['dollars_per_account']} $ per account"
    )


def main() -> None:
    """Print the tables, or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--committee", type=int, default=30)
    parser.add_argument("--signers", type=int, default=30)
    parser.add_argument("--accounts", default="1,10,100,1000", help="numbers, parted by commas")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    counts = [
        int(each) for each in options.accounts.split(",") if each.isdecimal() and 0 < int(each) <= 4_000
    ]
    quorum = options.committee - (options.committee - 1) // 3
    if not quorum <= options.signers <= options.committee <= 256:
        parser.error(f"of {options.committee} members (256 at most), {quorum} to all may sign")
    if not counts:
        parser.error("--accounts takes numbers from 1 to 4000, parted by commas")
    figures = measure(options.committee, options.signers, counts)
    if options.json:
        print(json.dumps(figures))
    else:
        show(figures)


if __name__ == "__main__":
    main()
