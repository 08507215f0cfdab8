"""The client's side: Put, Get, and the daemon that keeps data available and releases the test set.

from offchain.client import Client
client = Client.open("network.json", key_file="wallet.key", data_dir="orders")
oid = client.put(task, reward_wei=100 * 10**18)
model = client.get(oid)
"""

from offchain.client.client import Client, PlacedOrder, PreparedTask
from offchain.client.daemon import ClientDaemon
from offchain.client.task_file import TaskFile, read_task_file

__all__ = ["Client", "ClientDaemon", "PlacedOrder", "PreparedTask", "TaskFile", "read_task_file"]
