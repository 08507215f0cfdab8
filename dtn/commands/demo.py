"""``dtn demo``: a paid training order from nothing to the model in hand."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from dtn.commands.orders import gateway_of, show_order
from dtn.devnet import Devnet, Shape
from dtn.devnet.processes import interruptible
from dtn.follow import follow
from dtn.home import devnet_home
from dtn.output import JsonFlag, console, percent, print_json, table, tokens, write_output
from offchain.answers import OrderView, read
from offchain.client import Client, read_task_file
from offchain.config import ClientConfig
from offchain.network import NetworkFile
from protocol.crypto import sha256
from protocol.parameters import TOKEN_WEI

RESULT = ("oid", "winner", "score", "models", "credits", "settlement", "model_path", "mid", "phases")
"""What the demo's JSON holds."""
MEASURED = ("seconds", "order_seconds", "gas")
"""What ``--measure`` adds, for `benchmarks.demo`."""
REWARD_WEI = 100 * TOKEN_WEI
TASK_FILE = Path(__file__).resolve().parents[1] / "demo_task.yaml"


def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave the network running afterwards.")] = False,
    task: Annotated[Path, typer.Option(help="Another task file.")] = TASK_FILE,
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write the model.")] = Path(
        "build/demo/model.safetensors"
    ),
    as_json: JsonFlag = False,
    measure: Annotated[bool, typer.Option("--measure", help="Add seconds and gas to the JSON.")] = False,
) -> None:
    """Start a local network, put an order on real data, follow it, fetch the model, show who was paid."""
    progress = Console(stderr=True, highlight=False)
    started = time.monotonic()

    def say(text: str) -> None:
        progress.print(f"{time.monotonic() - started:7.1f} s  {text}")

    devnet = Devnet(devnet_home(), say=say)
    say("starting a local network")
    with interruptible():
        kept = False
        devnet.up(Shape())
        try:
            result = _run(devnet, task, output, say, started)
            result["seconds"] = round(time.monotonic() - started, 1)
            kept = keep
        finally:
            if not kept:
                say("stopping the network")
                devnet.down()
    if as_json:
        shown = (*RESULT, *MEASURED) if measure else RESULT
        print_json({key: result[key] for key in shown})
    else:
        _show(result, devnet, kept)


def _run(devnet: Devnet, task: Path, output: Path, say: Any, began_s: float) -> dict[str, Any]:
    config = ClientConfig.read(devnet.config("client"))
    client = Client(NetworkFile.read(config.network), config.key(), config.data_dir)
    say(f"putting an order over {tokens(REWARD_WEI)} tokens")
    up_s = time.monotonic()
    placed = client.put(read_task_file(task), reward_wei=REWARD_WEI, gateway=gateway_of(config))
    oid = "0x" + placed.oid.hex()
    say(f"order {oid}")
    detail = follow(client.network, oid, quiet=False, began_s=began_s)
    model, answer = client.get(placed.oid)
    write_output(output, model)
    say("fetched the winning model and checked its hash")
    claim_gas = _pay_out(devnet, detail)
    order_s = time.monotonic() - up_s
    phases = detail["phases"]
    ends = [*[entered["atMs"] for entered in phases[1:]], detail["settlement"]["atMs"]]
    return {
        "oid": oid,
        "winner": detail["winner"],
        "score": int(detail["score"]) if detail["score"] is not None else None,
        "models": [
            {
                "provider": claim["provider"],
                "mid": claim["mid"],
                "size_bytes": claim["sizeBytes"],
                "score": int(claim["score"]) if claim["score"] is not None else None,
            }
            for claim in detail["claims"]
        ],
        "credits": [
            {
                "account": receipt["account"],
                "role": receipt["role"],
                "reason": receipt["reason"],
                "amount_wei": receipt["amountWei"],
            }
            for receipt in detail["receipts"]
        ],
        "settlement": {"tx": detail["settlement"]["tx"], "gas_used": detail["settlement"]["gasUsed"]},
        "model_path": str(output),
        "mid": answer["mid"],
        "sha256": "0x" + sha256(model).hex(),
        "phases": [
            {
                "phase": entered["phase"],
                "at_ms": entered["atMs"],
                "seconds": round((end - entered["atMs"]) / 1000, 1),
            }
            for entered, end in zip(phases, ends, strict=True)
        ],
        "order_seconds": round(order_s, 1),
        "gas": {
            "put": [placed.gas_used],
            "settle": [detail["settlement"]["gasUsed"]],
            "claim": claim_gas,
            **devnet.gas,
        },
        "detail": detail,
    }


def _pay_out(devnet: Devnet, detail: dict[str, Any]) -> list[int]:
    """The treasury plays keeper: it pays every account its credits out of the settlement contract."""
    file = devnet.network()
    keeper = Client(file, devnet.key("treasury"), devnet.folder / "data" / "keeper")
    accounts = [credit["account"] for credit in detail["settlement"]["credits"]]
    return [gas for account in accounts for gas in keeper.claim(bytes.fromhex(account[2:])).gas]


def _show(result: dict[str, Any], devnet: Devnet, kept: bool) -> None:
    names = devnet.names()
    show_order(read("the order", OrderView, result["detail"]), names)
    table(
        "result",
        ("what", "value"),
        [
            ("winner", f"{names.get(result['winner'], '?')} ({result['winner']})"),
            ("exact score", percent(result["score"])),
            ("settlement", f"{result['settlement']['tx']} with {result['settlement']['gas_used']} gas"),
            ("model", f"{result['model_path']}, {Path(result['model_path']).stat().st_size} bytes"),
            ("sha256 = MID", result["sha256"]),
            ("seconds", result["seconds"]),
        ],
    )
    if kept:
        console.print(
            "the network is still up: try `dtn orders`, `dtn nodes`; stop it with `dtn devnet down`"
        )
