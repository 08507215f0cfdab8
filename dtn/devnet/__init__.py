"""A whole local network in processes of its own: Anvil, contracts, aggregators, nodes and a client.

    with_devnet = Devnet(folder); with_devnet.up(Shape()); ...; with_devnet.down()

Everything is real: the chain, the contracts, the committee over its links, the actors' own processes. Only
the windows are short and the keys worthless.
"""

from dtn.devnet.anvil import DevnetError
from dtn.devnet.network import Devnet, Shape

__all__ = ["Devnet", "DevnetError", "Shape"]
