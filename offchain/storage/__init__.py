"""Content-addressed artifacts: every byte is named by its IPFS CID and checked against it before use.

    store = EmbeddedStore(path); cid = store.put(data); store.publish(cid)
    data = fetch(cid, links, max_bytes=...)

Source: PoT 3.1.2 (storage is the participants' own); design section 9.
"""

from typing import TYPE_CHECKING, Any

from offchain.storage.car import CarReader, InvalidCar, write_car
from offchain.storage.cid import Cid, InvalidCid
from offchain.storage.embedded import Collected, EmbeddedStore, IncompleteFile, NotStored, Pin, StorageFull
from offchain.storage.fetch import Unavailable, fetch, fetch_file, link_to, parse_link, probe
from offchain.storage.store import Store

if TYPE_CHECKING:
    from offchain.storage.gateway import Gateway

__all__ = [
    "CarReader",
    "Cid",
    "Collected",
    "EmbeddedStore",
    "Gateway",
    "IncompleteFile",
    "InvalidCar",
    "InvalidCid",
    "NotStored",
    "Pin",
    "StorageFull",
    "Store",
    "Unavailable",
    "fetch",
    "fetch_file",
    "link_to",
    "parse_link",
    "probe",
    "write_car",
]


def __getattr__(name: str) -> Any:
    """The gateway is a web server, and most who fetch or keep files do not serve any."""
    if name != "Gateway":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from offchain.storage.gateway import Gateway

    return Gateway
