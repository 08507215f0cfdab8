"""``dtn devnet up|down|stop|start|status|fund|logs``: a whole local network."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from dtn.devnet import Devnet, DevnetError, Shape
from dtn.home import devnet_home
from dtn.output import JsonFlag, console, parse_id, print_json, table, tokens, wei

app = typer.Typer(help="Run a whole network on this machine.", no_args_is_help=True)

Count = Annotated[int, typer.Option(min=0, max=30)]


@app.command()
def up(
    aggregators: Annotated[int, typer.Option(min=1, max=30)] = 4,
    threshold: Annotated[
        int | None, typer.Option(help="How many of them sign a settlement; all but a third if not given.")
    ] = None,
    providers: Count = 2,
    validators: Count = 2,
    verifiers: Count = 1,
    governed: Annotated[bool, typer.Option(help="A DAO decides; the client votes for it.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Start the chain, deploy the contracts, start every participant."""
    devnet = Devnet(devnet_home(), say=lambda text: None if as_json else console.print(text))
    devnet.up(
        Shape(
            aggregators=aggregators,
            threshold=threshold,
            providers=providers,
            validators=validators,
            verifiers=verifiers,
            governed=governed,
        )
    )
    if as_json:
        print_json(_status(devnet))
        return
    console.print("the network is up; try: dtn put examples/digits.yaml --reward 100 --wait")


@app.command()
def down(as_json: JsonFlag = False) -> None:
    """Stop everything that `up` started."""
    devnet = Devnet(devnet_home())
    count = len(devnet.running())
    devnet.down()
    if as_json:
        print_json({"stopped": count})
    else:
        console.print(f"stopped {count} processes")


Name = Annotated[str, typer.Argument(help="As `dtn devnet status` shows it.")]


@app.command()
def stop(
    name: Name,
    kill: Annotated[bool, typer.Option("--kill", help="Without a word, like a power cut.")] = False,
) -> None:
    """End one participant's process; the others go on. `start` starts it again."""
    devnet = Devnet(devnet_home())
    if name not in devnet.children.all():
        raise DevnetError(f"no participant called {name!r} runs; see `dtn devnet status`")
    devnet.children.stop([name], kill=kill)
    console.print(f"{name} has ended")


@app.command()
def start(name: Name) -> None:
    """Start a participant's process again, with its configuration and data as they are."""
    devnet = Devnet(devnet_home())
    if not devnet.config(name).exists():
        raise DevnetError(f"there is no participant called {name!r}; see `dtn devnet status`")
    devnet.start(name)
    console.print(f"{name} runs")


def _status(devnet: Devnet) -> list[dict[str, object]]:
    accounts = {name: account for account, name in devnet.names().items()} if devnet.running() else {}
    return [
        {"name": name, "pid": child.pid, "running": child.find() is not None, "account": accounts.get(name)}
        for name, child in devnet.children.all().items()
    ]


@app.command()
def status(as_json: JsonFlag = False) -> None:
    """Show every process of the local network."""
    found = _status(Devnet(devnet_home()))
    if as_json:
        print_json(found)
        return
    if not found:
        raise DevnetError("no local network; start one with `dtn devnet up`")
    rows = [(f["name"], f["pid"], "running" if f["running"] else "ended", f["account"]) for f in found]
    table("local network", ("name", "pid", "state", "account"), rows)


@app.command()
def fund(
    address: Annotated[str, typer.Argument(help="Whom; a node that you add by hand, say.")],
    amount: Annotated[str, typer.Option("--tokens", help="How many tokens.")] = "2000",
    as_json: JsonFlag = False,
) -> None:
    """Give an account tokens and gas money of the local network."""
    account, amount_wei = parse_id(address, 20, "an address"), wei(amount)
    Devnet(devnet_home()).fund(account, amount_wei)
    if as_json:
        print_json({"account": "0x" + account.hex(), "amount_wei": str(amount_wei)})
    else:
        console.print(f"gave {tokens(amount_wei)} tokens and gas money to 0x{account.hex()}", soft_wrap=True)


@app.command()
def logs(
    name: Name,
    lines: Annotated[int, typer.Option("-n", min=1, max=100_000)] = 50,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as the log grows.")] = False,
) -> None:
    """Show the end of a participant's log."""
    path = Devnet(devnet_home()).children.log(name)
    if not path.exists():
        raise DevnetError(f"no participant called {name!r} has a log; see `dtn devnet status`")
    with open(path, encoding="utf-8", errors="replace") as file:
        print("".join(file.readlines()[-lines:]), end="")
        while follow:
            print(file.read(), end="", flush=True)
            time.sleep(0.5)
