"""``dtn top``: committee, orders and settlements of a network, live in a terminal."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.live import Live

from dtn.home import default_network
from dtn.output import JsonFlag, console, print_json
from dtn.overview import MOST_ROWS, Overview, draw
from offchain.network import NetworkError, NetworkFile

OTHER_LINES: Final = 22
"""Lines of the screen that are not orders."""


def top(
    network: Annotated[
        Path | None,
        typer.Option("--network", help="Network file; by default $DTN_NETWORK or the local network."),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Show one look and end.")] = False,
    every_s: Annotated[
        float, typer.Option("--every", min=0.5, max=3600, help="Seconds between two looks.")
    ] = 2.0,
    as_json: JsonFlag = False,
) -> None:
    """Watch the network: committee, orders with their clocks, settlements. Ctrl-C ends it."""
    overview = Overview(NetworkFile.read(network or default_network()))
    try:
        if as_json or once or not console.is_terminal:
            look = overview.look()
            if as_json:
                print_json(look.as_json())
            else:
                console.print(draw(look))
            if look.problem:
                raise NetworkError(look.problem)
            return
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                rows = max(3, min(MOST_ROWS, console.height - OTHER_LINES))
                live.update(draw(overview.look(rows), rows), refresh=True)
                time.sleep(every_s)
    except KeyboardInterrupt:
        return
    finally:
        overview.close()
