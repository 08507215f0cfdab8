"""``dtn provider run|status|payouts|quote``: what a provider's operator does beyond staking."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.live import Live
from rich.table import Table

from dtn.commands import quotes
from dtn.commands.roles import role_app
from dtn.commands.staking import Config
from dtn.output import JsonFlag, console, parse_id, percent, print_json, short, table, tokens, wei
from offchain.config import ProviderConfig
from offchain.network import Network, NetworkFile
from protocol.chain.client import ChainClient, connect

if TYPE_CHECKING:
    from offchain.provider.pool.payouts import Payout

Pool = Annotated[Path | None, typer.Option("--pool", help="The pool's TOML file; see docs/pools.md.")]

REFRESH_S: Final = 1.0
COLUMNS: Final = (
    "order",
    "state",
    "step",
    "loss",
    "best score",
    "claimed",
    "steps/s",
    "time left",
    "memory",
    "hosts",
    "age",
)


def run(config: Config, pool: Pool = None) -> None:
    """Run a provider until it is told to stop: alone, or as leader or member of a pool."""
    from offchain.provider import Provider
    from offchain.provider.pool import PoolMember, PoolSettings

    settings = ProviderConfig.read(config)
    if pool is None:
        Provider(settings).run()
        return
    agreed = PoolSettings.read(pool)
    if agreed.is_leader(settings.key()):
        Provider(settings, agreed).run()
    else:
        PoolMember(settings, agreed).run()


def quote(
    oid: str,
    config: Config,
    cost_per_hour: Annotated[
        str | None, typer.Option(help="What an hour of this machine costs you, in tokens.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show what training an order may bring, out of settled orders like it."""
    parse_id(oid, 32, "an OID")
    settings = ProviderConfig.read(config)
    network = Network(NetworkFile.read(settings.network))
    account = "0x" + settings.address.hex()
    quotes.provider(network, oid, account, wei(cost_per_hour) if cost_per_hour else 0, as_json)


def status(
    config: Config,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Show it live until interrupted.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Show what the provider of a configuration trains, from the events on its disk."""
    data_dir = ProviderConfig.read(config).data_dir
    if as_json:
        print_json({"orders": _standings(data_dir)})
        return
    if not follow:
        table("trainings", COLUMNS, _rows(data_dir))
        return
    try:
        with Live(_grid(data_dir), console=console, refresh_per_second=1 / REFRESH_S) as live:
            while True:
                time.sleep(REFRESH_S)
                live.update(_grid(data_dir))
    except KeyboardInterrupt:
        return


def payouts(
    oid: str,
    config: Config,
    pool: Annotated[Path, typer.Option("--pool", help="The pool's TOML file.")],
    reward: Annotated[
        str | None, typer.Option(help="Tokens to split; what the ledger paid for the order if not given.")
    ] = None,
    pay: Annotated[
        bool, typer.Option("--pay", help="Send the members their tokens; none is sent twice.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Show how a pool's reward for an order splits among its members, and pay them with --pay."""
    from offchain.committee import read_committee
    from offchain.network import Network, NetworkFile
    from offchain.provider.pool.contributions import ContributionRecord, contributions_of, work_of
    from offchain.provider.pool.payments import NotPaid, Payments, earned_wei, payments_of
    from offchain.provider.pool.payouts import split
    from offchain.provider.pool.settings import PoolSettings

    order = "0x" + parse_id(oid, 32, "an OID").hex()
    settings, agreed = ProviderConfig.read(config), PoolSettings.read(pool)
    key, file = settings.key(), NetworkFile.read(settings.network)
    if not agreed.is_leader(key):
        raise NotPaid("the pool's leader has the record and pays: run this with its configuration")

    def chain() -> ChainClient:
        return ChainClient(connect(file.rpc_url, file.address_book.chain_id), file.address_book, key)

    if reward is not None:
        amount = wei(reward)
    else:
        amount = earned_wei(Network(file), read_committee(chain()), order, agreed.leader)
    record = ContributionRecord(contributions_of(settings.data_dir))
    shares = split(amount, work_of(record, order), agreed)
    paid: dict[str, str] = {}
    if pay:
        payments = Payments(payments_of(settings.data_dir), chain())
        for each in shares:
            if each.account != agreed.leader and each.amount_wei:
                paid[each.account] = payments.pay(order, each.account, each.amount_wei).tx or ""
    if as_json:
        print_json(
            {
                "oid": order,
                "reward_wei": str(amount),
                "split_by": agreed.split_by,
                "fee_bps": agreed.fee_bps,
                "payouts": [_payout(each, paid) for each in shares],
            }
        )
        return
    table(
        f"{tokens(amount)} tokens for order {short(order)}, split by {agreed.split_by}",
        ("account", "steps", "samples", "device time", "fee", "share", "tokens", "paid by"),
        [_payout_row(each, agreed.leader, paid) for each in shares],
    )


# Showing ---------------------------------------------------------------------------------------------


def _payout(payout: Payout, paid: Mapping[str, str]) -> dict[str, Any]:
    return {
        "account": payout.account,
        "steps": payout.work.steps,
        "samples": payout.work.samples,
        "device_ms": payout.work.device_ms,
        "fee_wei": str(payout.fee_wei),
        "share_wei": str(payout.share_wei),
        "amount_wei": str(payout.amount_wei),
        "tx": paid.get(payout.account),
    }


def _payout_row(payout: Payout, leader: str, paid: Mapping[str, str]) -> tuple[Any, ...]:
    return (
        payout.account + " (leader)" * (payout.account == leader),
        payout.work.steps,
        payout.work.samples,
        f"{payout.work.device_ms // 1000} s",
        tokens(payout.fee_wei),
        tokens(payout.share_wei),
        tokens(payout.amount_wei),
        short(paid.get(payout.account)),
    )


def _standings(data_dir: Path) -> list[dict[str, Any]]:
    """Where each order stands, the last event first."""
    from offchain.provider.progress import NAME, standing

    found = []
    for path in (data_dir / "orders").glob(f"*/{NAME}"):
        if (now := standing(path)) is not None:
            found.append({"oid": "0x" + path.parent.name, **now})
    return sorted(found, key=lambda item: -item["time_ms"])


def _rows(data_dir: Path) -> list[tuple[Any, ...]]:
    return [
        (
            short(item["oid"]),
            item["event"] if item["event"] in ("ended", "given_up") else "training",
            item.get("step"),
            _number(item.get("loss"), ".4f"),
            percent(item.get("best_score")),
            percent(item.get("claimed_score")),
            _number(item.get("steps_per_s"), ".0f"),
            _number(item.get("time_left_s"), ".0f", " s"),
            _number(_mebibytes(item.get("device_bytes")), ".0f", " MiB"),
            len(item.get("accounts", ["this"])),
            f"{max(0.0, time.time() - item['time_ms'] / 1000):.0f} s",
        )
        for item in _standings(data_dir)
    ]


def _grid(data_dir: Path) -> Table:
    grid = Table(title="trainings", title_justify="left", title_style="bold")
    for column in COLUMNS:
        grid.add_column(column)
    for row in _rows(data_dir):
        grid.add_row(*(str(cell) if cell is not None else "–" for cell in row))
    return grid


def _mebibytes(count: int | None) -> float | None:
    return None if count is None else count / 2**20


def _number(value: float | None, form: str, unit: str = "") -> str | None:
    return None if value is None else f"{value:{form}}{unit}"


app = role_app("provider")
for command in (run, status, payouts, quote):
    app.command()(command)
