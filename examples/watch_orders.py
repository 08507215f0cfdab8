"""Watches every open order of a network until each is settled, and says who won.

    python examples/watch_orders.py --network network.json

Needs no key: whoever watches is told by aggregators' event streams when to look, and believes only what
f + 1 of them say alike.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile

from offchain.client import AsyncClient


async def follow(client: AsyncClient, oid: str) -> None:
    """Print an order's phases as they come."""
    async for update in client.watch(bytes.fromhex(oid[2:])):
        print(f"{oid[:10]} is in {update.phase}", flush=True)
    order = await client.order(bytes.fromhex(oid[2:]))
    winner = f"{order.winner} with {order.score}" if order.winner else "nobody"
    print(f"{oid[:10]} paid {order.reward_wei} wei, won by {winner} ({order.result})", flush=True)


async def main() -> None:
    """Follow all orders at once."""
    parser = argparse.ArgumentParser(description="Watch every open order until it is settled.")
    parser.add_argument("--network", required=True, help="the network file")
    network = parser.parse_args().network
    with tempfile.TemporaryDirectory() as folder:
        async with AsyncClient.open(network, key_file=None, data_dir=folder) as client:
            rows = [row for row in await client.orders() if row.phase != "settled"]
            await asyncio.gather(*(follow(client, row.oid) for row in rows))


if __name__ == "__main__":
    asyncio.run(main())
