"""The client's side: Put, Get, and the daemon that keeps data available and releases the test set.

    client = Client.open("network.json", key_file="wallet.key", data_dir="orders")
    placed = client.put(read_task_file(path), reward_wei=100 * 10**18, gateway="http://127.0.0.1:7704")
    for update in client.watch(placed.oid):
        print(update.phase)
    model, answer = client.get(placed.oid)

`ClientDaemon` must run on the same data folder and serve ``gateway`` until the order is sealed.
"""

from offchain.client.client import Client, PlacedOrder, PreparedTask
from offchain.client.daemon import ClientDaemon
from offchain.client.task_file import TaskFile, read_task_file
from offchain.watching import Update

__all__ = ["Client", "ClientDaemon", "PlacedOrder", "PreparedTask", "TaskFile", "Update", "read_task_file"]
