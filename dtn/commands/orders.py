"""``dtn put``, ``get``, ``claim``, ``cancel`` and ``reclaim`` for clients; ``orders`` and such for all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Final

import typer

from dtn.commands import quotes
from dtn.follow import follow
from dtn.home import default_client, default_network
from dtn.output import (
    BadAmount,
    JsonFlag,
    console,
    line,
    parse_id,
    percent,
    print_json,
    short,
    table,
    tokens,
    transfer,
    wei,
)
from dtn.overview import NOBODY, Overview
from offchain.answers import (
    AccountView,
    DisputeRow,
    NodeRow,
    Orders,
    OrderView,
    fetch_detail,
    fetch_order,
    read,
)
from offchain.client import Client, read_task_file
from offchain.config import ClientConfig, InvalidConfig, read_any
from offchain.network import Network, NetworkError, NetworkFile
from offchain.storage.choice import open_store
from offchain.uptime import UPTIME_FILE, Seen, read_uptime
from protocol.errors import InvalidDocument
from protocol.transactions import IRRETRIEVABLE_SCORE, Cancel

NetworkOption = Annotated[
    Path | None, typer.Option("--network", help="Network file; by default $DTN_NETWORK or the local network.")
]
ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", help="Client configuration; by default $DTN_CLIENT or the local client."),
]
SignerOption = Annotated[
    str | None,
    typer.Option(
        "--signer",
        metavar="URL",
        help="JSON-RPC signer of --account, instead of what the configuration says.",
    ),
]
AccountOption = Annotated[
    str | None, typer.Option("--account", metavar="ADDRESS", help="The account that --signer signs for.")
]


NAMELESS: Final[Mapping[str, str]] = MappingProxyType({})
ROUNDS: Final = ("first", "second", "appeal")
"""What rounds of verdicts are called."""


def _network(path: Path | None) -> Network:
    return Network(NetworkFile.read(path or default_network()))


def client_of(
    path: Path | None, signer: str | None = None, account: str | None = None
) -> tuple[Client, ClientConfig]:
    """The client that a configuration file, or else the default one, describes; options go before it."""
    chosen = path or default_client()
    if not chosen.exists():
        raise InvalidConfig(
            f"no client configuration at {chosen}: start a local network with `dtn devnet up`, "
            "or name yours with --config"
        )
    config = ClientConfig.read(chosen)
    if signer is not None or account is not None:
        config = config.signed_by(signer, account)
    store = None if config.storage == "embedded" else open_store(config)
    return Client(NetworkFile.read(config.network), config.signer(), config.data_dir, store), config


def gateway_of(config: ClientConfig) -> str:
    """The URL under which the client's daemon serves its data."""
    if config.public_url is not None:
        return config.public_url
    if not config.gateway_port:
        raise InvalidDocument(
            "the client configuration needs a fixed gateway_port or a public_url: "
            "providers fetch the data there"
        )
    return f"http://{config.gateway_host}:{config.gateway_port}"


def put(
    task: Annotated[Path, typer.Argument(help="Task file (YAML); see examples/.")],
    reward: Annotated[str | None, typer.Option(help="Reward in tokens.")] = None,
    deposit: Annotated[
        str | None,
        typer.Option(help="Deposit in tokens, lost if you withhold the test set; least if not given."),
    ] = None,
    config: ConfigOption = None,
    signer: SignerOption = None,
    account: AccountOption = None,
    wait: Annotated[bool, typer.Option("--wait", help="Show progress until the order is settled.")] = False,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Only show what comparable orders paid; place nothing.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Order a model: escrow the reward and publish the task (PoT Put)."""
    client, settings = client_of(config, signer, account)
    if estimate:
        quotes.client(client, read_task_file(task), as_json)
        return
    if reward is None:
        raise BadAmount("say what you pay with --reward; `--estimate` shows what comparable orders paid")
    placed = client.put(
        read_task_file(task),
        reward_wei=wei(reward),
        deposit_wei=wei(deposit) if deposit else None,
        gateway=gateway_of(settings),
    )
    oid = "0x" + placed.oid.hex()
    if wait:
        follow(client.network, oid, quiet=as_json)
    if as_json:
        print_json({"oid": oid, "tx": "0x" + placed.transaction_hash.hex(), "gas_used": placed.gas_used})
        return
    console.print(f"order {oid}", soft_wrap=True)
    console.print("keep `dtn client run` running: it publishes the data and releases the test set")


def get(
    oid: str,
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write the model.")],
    config: ConfigOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Fetch the winning model of an order and check its hash (PoT Get)."""
    client, _ = client_of(config)
    with transfer("bytes fetched", None) as told:
        answer = client.get_file(parse_id(oid, 32, "an OID"), output, told)
    if as_json:
        print_json(answer | {"path": str(output), "sha256": answer["mid"]})
        return
    size = output.stat().st_size
    console.print(f"{output}: {size} bytes, score {percent(answer['score'])}, by {answer['winner']}")
    console.print(f"sha256 {answer['mid']} is the order's MID", soft_wrap=True)


def orders(
    network: NetworkOption = None,
    phase: Annotated[str | None, typer.Option(help="Only orders in this phase.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500)] = 50,
    as_json: JsonFlag = False,
) -> None:
    """List orders, best reward per second of training first (PoT FetchOrders)."""
    params: dict[str, Any] = {"limit": limit} | ({"phase": phase} if phase else {})
    answer = _network(network).get("/v1/orders", **params)
    found = read("orders", Orders, answer).orders
    if as_json:
        print_json(answer)
        return
    rows = [(o.oid, o.kind, o.phase, tokens(o.reward_wei), percent(o.score), o.result) for o in found]
    table("orders", ("OID", "kind", "phase", "reward", "score", "result"), rows)


def order(oid: str, network: NetworkOption = None, as_json: JsonFlag = False) -> None:
    """Show one order: phases, claims, validations, challenges, winner, receipts."""
    asked = _network(network)
    named = "0x" + parse_id(oid, 32, "an OID").hex()
    if as_json:
        print_json(fetch_detail(asked, named))
        return
    show_order(fetch_order(asked, named))


def show_order(found: OrderView, names: Mapping[str, str] = NAMELESS) -> None:
    """An order's tables; accounts that have one of ``names`` are called by it."""
    line(f"order {found.oid} · {found.kind} · phase {found.phase}")
    if found.phases:
        _show_work(found, names)
    if found.result is not None:
        line(f"result: {found.result}")
    rows = [(names.get(r.account, r.account), r.role, tokens(r.amount_wei), r.reason) for r in found.receipts]
    table("receipts", ("account", "role", "tokens", "reason"), rows)
    if found.settlement is not None:
        paid = found.settlement
        line(f"settled in epoch {paid.epoch} by {paid.tx} with {paid.gas_used} gas")


def _show_work(found: OrderView, names: Mapping[str, str]) -> None:
    """Phases, and what was done in them."""
    start_ms = found.phases[0].at_ms
    entered = [(each.phase, f"{(each.at_ms - start_ms) / 1000:.1f} s") for each in found.phases]
    table("phases", ("phase", "entered after"), entered)
    claims = [
        (
            names.get(each.provider, each.provider),
            short(each.mid),
            each.size_bytes,
            percent(each.score),
            "winner" * (each.provider == found.winner),
        )
        for each in found.claims
    ]
    table("claims", ("provider", "MID", "bytes", "score", ""), claims)
    validations = [
        (
            names.get(each.validator, each.validator),
            short(each.mid),
            percent(each.score),
            tokens(each.v_stake_wei),
        )
        for each in found.validations
    ]
    table("validations", ("validator", "MID", "score", "vStake"), validations)
    if found.challenges:
        challenges = [
            (
                names.get(each.challenger, each.challenger),
                short(each.vid),
                percent(each.score),
                tokens(each.c_stake_wei),
            )
            for each in found.challenges
        ]
        table("challenges", ("challenger", "VID", "score", "cStake"), challenges)
    if found.reports:
        reports = [
            (names.get(each.reporter, each.reporter), each.of, short(each.subject), tokens(each.stake_wei))
            for each in found.reports
        ]
        table("irretrievable reports", ("reporter", "of", "subject", "stake"), reports)
    if found.disputes:
        disputes = [
            (
                each.of,
                short(each.mid),
                ROUNDS[each.round - 1] if 0 < each.round <= len(ROUNDS) else each.round,
                f"{sum(seat.committed for seat in each.jurors)} of {len(each.jurors)}",
                _verdict(each),
            )
            for each in found.disputes
        ]
        table("disputes", ("of", "subject", "round", "jurors who judged", "verdict"), disputes)
    if found.appeals:
        appeals = [
            (names.get(each.appellant, each.appellant), each.of, short(each.subject), tokens(each.bond_wei))
            for each in found.appeals
        ]
        table("appeals", ("appellant", "of", "subject", "bond"), appeals)


def _verdict(dispute: DisputeRow) -> str:
    score = dispute.verdict.score
    if score is None:
        return "none"
    return "fetched" if dispute.of == "test set" and score != IRRETRIEVABLE_SCORE else percent(score)


def account(address: str, network: NetworkOption = None, as_json: JsonFlag = False) -> None:
    """Why an account was paid: stakes, receipts with their settlement, claimable credits."""
    answer = _network(network).get(f"/v1/accounts/0x{parse_id(address, 20, 'an address').hex()}")
    found = read("an account", AccountView, answer)
    if as_json:
        print_json(answer)
        return
    stakes = [
        (each.role, tokens(each.bonded_wei), tokens(each.locked_wei), tokens(each.unbonding_wei))
        for each in found.stakes
    ]
    table("stakes", ("role", "bonded", "locked", "unbonding"), stakes)
    paid = [(each, short(each.tx)) for each in found.receipts]
    waiting = [(each, "not settled yet") for each in found.pending]
    rows = [
        (short(each.oid), each.role, tokens(each.amount_wei), each.reason, settlement)
        for each, settlement in (*paid, *waiting)
    ]
    table("receipts", ("order", "role", "tokens", "reason", "settlement"), rows)
    due = [(each.epoch, tokens(each.amount_wei)) for each in found.credits]
    table("credits (pay out with `dtn claim`)", ("epoch", "tokens"), due)


def claim(
    address: Annotated[str | None, typer.Argument(help="Whom to pay; yourself if not given.")] = None,
    config: ConfigOption = None,
    signer: SignerOption = None,
    account: AccountOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Pay out all settled credits of an account. Anyone may; the account gets the tokens."""
    client, settings = client_of(config, signer, account)
    account_bytes = parse_id(address, 20, "an address") if address else settings.address
    paid = client.claim(account_bytes)
    if as_json:
        print_json(
            {
                "account": "0x" + account_bytes.hex(),
                "amount_wei": str(paid.amount_wei),
                "epochs": list(paid.epochs),
            }
        )
        return
    console.print(
        f"paid {tokens(paid.amount_wei)} tokens of {len(paid.epochs)} epochs to 0x{account_bytes.hex()}",
        soft_wrap=True,
    )


def cancel(
    oid: str,
    config: ConfigOption = None,
    signer: SignerOption = None,
    account: AccountOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Take back an order that nobody has claimed yet."""
    client, _ = client_of(config, signer, account)
    client.network.trust(client.chain().speaking_committees)
    answer = client.network.submit(Cancel, oid=parse_id(oid, 32, "an OID"))
    if as_json:
        print_json(answer)
        return
    console.print("cancelled; the refund comes with the next settlement")


def reclaim(
    oid: str,
    config: ConfigOption = None,
    signer: SignerOption = None,
    account: AccountOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Take back the escrow of an order that the network let lapse; needs the chain alone."""
    client, _ = client_of(config, signer, account)
    back = client.reclaim(parse_id(oid, 32, "an OID"))
    if as_json:
        tx = "0x" + back.transaction_hash.hex()
        print_json({"oid": oid, "amount_wei": str(back.amount_wei), "tx": tx, "gas_used": back.gas_used})
        return
    console.print(f"{tokens(back.amount_wei)} tokens are back")


def nodes(network: NetworkOption = None, as_json: JsonFlag = False) -> None:
    """List registered nodes and their stakes."""
    found = list(_network(network).pages("/v1/nodes", "nodes"))
    registered = read("nodes", list[NodeRow], found)
    if as_json:
        print_json({"nodes": found})
        return
    rows = [
        (each.account, stake.role, tokens(stake.bonded_wei), tokens(stake.locked_wei), each.endpoint)
        for each in registered
        for stake in each.stakes
    ]
    table("nodes", ("account", "role", "bonded", "locked", "endpoint"), rows)


def node(
    address: str,
    network: NetworkOption = None,
    watcher: Annotated[
        Path | None,
        typer.Option(
            help="Configuration of your validator or verifier: how often what the node serves came to it."
        ),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show one node: its stakes, and what it kept and broke in the latest settled orders."""
    account = "0x" + parse_id(address, 20, "an address").hex()
    seen = None
    if watcher is not None:
        seen = read_uptime(read_any(watcher).data_dir / UPTIME_FILE).get(account, Seen())
    quotes.node(_network(network), account, seen, as_json)


def status(network: NetworkOption = None, as_json: JsonFlag = False) -> None:
    """Show where every aggregator stands."""
    overview = Overview(NetworkFile.read(network or default_network()))
    found = overview.statuses()
    overview.close()
    if as_json:
        print_json({"aggregators": [seen.as_json() for seen in found]})
        return
    rows = [
        (
            seen.url,
            now.view,
            now.primary,
            now.executed,
            now.origin,
            now.orders,
            "; ".join(now.alarms) or "none",
        )
        if (now := seen.standing) is not None
        else (seen.url, "down", None, None, None, None, None)
        for seen in found
    ]
    table("aggregators", ("API", "view", "primary", "executed", "origin", "orders", "alarms"), rows)
    if all(seen.standing is None for seen in found):
        raise NetworkError(NOBODY)
