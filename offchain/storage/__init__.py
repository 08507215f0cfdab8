"""Content-addressed artifacts: every byte is named by its IPFS CID and checked against it before use.

    store = EmbeddedStore(path); cid = store.put(data); store.publish(cid)
    data = fetch(cid, links, max_bytes=...)

Source: PoT 3.1.2 (storage is the participants' own); design section 9.
"""

from offchain.storage.car import CarReader, InvalidCar, write_car
from offchain.storage.cid import Cid, InvalidCid
from offchain.storage.embedded import Collected, EmbeddedStore, IncompleteFile, NotStored, Pin, StorageFull
from offchain.storage.fetch import Unavailable, fetch, fetch_file, link_to, parse_link, probe
from offchain.storage.gateway import Gateway
from offchain.storage.store import Store

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
