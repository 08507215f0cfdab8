"""``dtn put``, ``get``, ``claim``, ``cancel`` and ``reclaim`` for clients; ``orders`` and such for all."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from dtn.commands import quotes
from dtn.follow import follow
from dtn.home import default_client, default_network
from dtn.output import (
    BadAmount,
    JsonFlag,
    console,
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
    if as_json:
        print_json(answer)
        return
    rows = [
        (o["oid"], o["kind"], o["phase"], tokens(o["rewardWei"]), percent(o["score"]), o["result"])
        for o in answer["orders"]
    ]
    table("orders", ("OID", "kind", "phase", "reward", "score", "result"), rows)


def order(oid: str, network: NetworkOption = None, as_json: JsonFlag = False) -> None:
    """Show one order: phases, claims, validations, challenges, winner, receipts."""
    parse_id(oid, 32, "an OID")
    detail = _network(network).get(f"/v1/orders/{oid}")
    if as_json:
        print_json(detail)
        return
    show_order(detail)


def show_order(detail: dict[str, Any]) -> None:
    """An order's tables."""
    console.print(f"order {detail['oid']} · {detail['kind']} · phase {detail['phase']}", soft_wrap=True)
    if detail.get("phases"):
        start = detail["phases"][0]["atMs"]
        rows = [(p["phase"], f"{(p['atMs'] - start) / 1000:.1f} s") for p in detail["phases"]]
        table("phases", ("phase", "entered after"), rows)
        rows_claims = [
            (
                c["provider"],
                short(c["mid"]),
                c["sizeBytes"],
                percent(c["score"]),
                "winner" * (c["provider"] == detail["winner"]),
            )
            for c in detail["claims"]
        ]
        table("claims", ("provider", "MID", "bytes", "score", ""), rows_claims)
        rows_validations = [
            (v["validator"], short(v["mid"]), percent(v["score"]), tokens(v["vStakeWei"]))
            for v in detail["validations"]
        ]
        table("validations", ("validator", "MID", "score", "vStake"), rows_validations)
        if detail["challenges"]:
            rows_challenges = [
                (c["challenger"], short(c["vid"]), percent(c["score"]), tokens(c["cStakeWei"]))
                for c in detail["challenges"]
            ]
            table("challenges", ("challenger", "VID", "score", "cStake"), rows_challenges)
        _show_disputes(detail)
    if detail["result"]:
        console.print(f"result: {detail['result']}")
    show_receipts("receipts", detail["receipts"])
    settlement = detail["settlement"]
    if settlement:
        console.print(
            f"settled in epoch {settlement['epoch']} by {settlement['tx']} with {settlement['gasUsed']} gas",
            soft_wrap=True,
        )


def _show_disputes(detail: dict[str, Any]) -> None:
    """Reports, verdicts and appeals, where there were any."""
    if detail["reports"]:
        rows_reports = [
            (r["reporter"], r["of"], short(r["subject"]), tokens(r["stakeWei"])) for r in detail["reports"]
        ]
        table("irretrievable reports", ("reporter", "of", "subject", "stake"), rows_reports)
    if detail["disputes"]:
        rows_disputes = [
            (
                d["of"],
                short(d["mid"]),
                ("first", "second", "appeal")[d["round"] - 1],
                f"{sum(seat['committed'] for seat in d['jurors'])} of {len(d['jurors'])}",
                _verdict(d),
            )
            for d in detail["disputes"]
        ]
        table("disputes", ("of", "subject", "round", "jurors who judged", "verdict"), rows_disputes)
    if detail["appeals"]:
        rows_appeals = [
            (a["appellant"], a["of"], short(a["subject"]), tokens(a["bondWei"])) for a in detail["appeals"]
        ]
        table("appeals", ("appellant", "of", "subject", "bond"), rows_appeals)


def _verdict(dispute: dict[str, Any]) -> str:
    score = dispute["verdict"]["score"]
    if score is None:
        return "none"
    return "fetched" if dispute["of"] == "test set" and int(score) != IRRETRIEVABLE_SCORE else percent(score)


def show_receipts(title: str, receipts: list[dict[str, Any]]) -> None:
    """Who was paid what and why."""
    rows = [(r["account"], r["role"], tokens(r["amountWei"]), r["reason"]) for r in receipts]
    table(title, ("account", "role", "tokens", "reason"), rows)


def account(address: str, network: NetworkOption = None, as_json: JsonFlag = False) -> None:
    """Why an account was paid: stakes, receipts with their settlement, claimable credits."""
    parse_id(address, 20, "an address")
    answer = _network(network).get(f"/v1/accounts/{address}")
    if as_json:
        print_json(answer)
        return
    stakes = [
        (s["role"], tokens(s["bondedWei"]), tokens(s["lockedWei"]), tokens(s["unbondingWei"]))
        for s in answer["stakes"]
    ]
    table("stakes", ("role", "bonded", "locked", "unbonding"), stakes)
    rows = [
        (short(r["oid"]), r["role"], tokens(r["amountWei"]), r["reason"], short(r["tx"]))
        for r in answer["receipts"]
    ] + [
        (short(r["oid"]), r["role"], tokens(r["amountWei"]), r["reason"], "not settled yet")
        for r in answer["pending"]
    ]
    table("receipts", ("order", "role", "tokens", "reason", "settlement"), rows)
    due = [(c["epoch"], tokens(c["amountWei"])) for c in answer["credits"]]
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
    if as_json:
        print_json({"nodes": found})
        return
    rows = [
        (n["account"], s["role"], tokens(s["bondedWei"]), tokens(s["lockedWei"]), n["endpoint"])
        for n in found
        for s in n["stakes"]
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
