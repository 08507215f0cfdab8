"""The client's side: Put, Get, and the daemon that keeps data available and releases the test set.

    client = Client.open("network.json", key_file="wallet.key", data_dir="orders")
    placed = client.put(read_task_file(path), reward_wei=100 * 10**18, gateway="http://127.0.0.1:7704")
    for update in client.watch(placed.oid):
        print(update.phase)
    model, answer = client.get(placed.oid)

A client whose key is elsewhere gives ``key_file=None, signer=ExternalSigner(url, account)`` instead.
`AsyncClient` does the same inside an event loop. `ClientDaemon` must run on the same data folder and serve
``gateway`` until the order is sealed.
"""

from typing import TYPE_CHECKING, Any

from offchain.answers import AccountView, OrderRow, OrderView, ValidationRow
from offchain.client.asynchronous import AsyncClient
from offchain.client.client import Claimed, Client, PlacedOrder, PreparedTask, Reclaimed
from offchain.client.task_file import TaskFile, read_task_file
from offchain.watching import Update
from protocol.chain.external_signer import ExternalSigner

if TYPE_CHECKING:
    from offchain.client.daemon import ClientDaemon

__all__ = [
    "AccountView",
    "AsyncClient",
    "Claimed",
    "Client",
    "ClientDaemon",
    "ExternalSigner",
    "OrderRow",
    "OrderView",
    "PlacedOrder",
    "PreparedTask",
    "Reclaimed",
    "TaskFile",
    "Update",
    "ValidationRow",
    "read_task_file",
]


def __getattr__(name: str) -> Any:
    """Who places orders need not wait for what the daemon imports."""
    if name != "ClientDaemon":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from offchain.client.daemon import ClientDaemon

    return ClientDaemon
