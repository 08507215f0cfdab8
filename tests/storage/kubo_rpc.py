"""A stand-in for a Kubo daemon's RPC, for lack of one that can be installed: HTTP as its reference has it.

Real are the client library, HTTP, multipart bodies and CARs; what a daemon does with its blocks is played:
they are in a dictionary, pins walk the tree and refuse one with a hole, and collecting drops what no pin
holds. Errors are Kubo's: status 500 and a JSON object with ``Message``.

Source: docs.ipfs.tech/reference/kubo/rpc.
"""

from __future__ import annotations

import io
import json
import threading
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from offchain.storage import CarReader, Cid
from offchain.storage.unixfs import children_of


class Refused(Exception):
    """What Kubo says no with."""


class KuboRpc:
    """A daemon; its state is there for tests to look at and to spoil."""

    def __init__(self, version: str = "0.7.0") -> None:
        self.version = version
        self.blocks: dict[str, bytes] = {}
        self.pins: set[str] = set()
        self.calls: list[str] = []
        self.imported: list[int] = []
        """Bytes of each CAR that came."""
        self.fail_at: str | None = None
        """A call that breaks the connection."""
        daemon = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                daemon._answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"/ip4/127.0.0.1/tcp/{self._server.server_address[1]}/http"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        parts = urlsplit(handler.path)
        call = parts.path.removeprefix("/api/v0/")
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        self.calls.append(call)
        body = _body(handler)
        if self.fail_at == call:
            handler.close_connection = True
            handler.connection.close()
            return
        try:
            status, answer = 200, self._do(call, query, body, dict(handler.headers))
        except Refused as reason:
            status, answer = 500, json.dumps({"Message": str(reason), "Code": 0, "Type": "error"}).encode()
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(answer)))
        handler.end_headers()
        handler.wfile.write(answer)

    def _do(self, call: str, query: dict[str, str], body: bytes, headers: dict[str, str]) -> bytes:
        if call != "version":
            assert query["offline"] == "true", "nothing may make the daemon search the network"
        named = query.get("arg", "")
        answer: Any
        match call:
            case "version":
                answer = {"Version": self.version, "Commit": "", "Repo": "11", "System": "", "Golang": ""}
            case "block/stat":
                answer = {"Key": named, "Size": len(self._block(named))}
            case "block/get":
                return self._block(named)
            case "dag/import":
                assert query["pin-roots"] == "false"
                car = _first_part(body, headers)
                self.imported.append(len(car))
                self.blocks |= {str(cid): block for cid, block in CarReader(io.BytesIO(car))}
                return b""
            case "pin/add":
                self._tree(named)
                self.pins.add(named)
                answer = {"Pins": [named]}
            case "pin/rm":
                if named not in self.pins:
                    raise Refused("not pinned or pinned indirectly")
                self.pins.remove(named)
                answer = {"Pins": [named]}
            case "repo/gc":
                held = {name for pin in self.pins for name in self._tree(pin)}
                self.blocks = {name: block for name, block in self.blocks.items() if name in held}
                return b""
            case _:
                raise Refused(f'command "{call}" not found')
        return json.dumps(answer).encode()

    def _block(self, name: str) -> bytes:
        if name not in self.blocks:
            raise Refused(f"block was not found locally (offline): ipld: could not find {name}")
        return self.blocks[name]

    def _tree(self, name: str) -> set[str]:
        cid = Cid.parse(name)
        children = children_of(cid, self._block(name))
        return {name}.union(*(self._tree(str(child.cid)) for child in children))


def _body(handler: BaseHTTPRequestHandler) -> bytes:
    if handler.headers.get("Transfer-Encoding") != "chunked":
        return handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
    parts = []
    while size := int(handler.rfile.readline(), 16):
        parts.append(handler.rfile.read(size))
        handler.rfile.readline()
    handler.rfile.readline()
    return b"".join(parts)


def _first_part(body: bytes, headers: dict[str, str]) -> bytes:
    """The file in a multipart form."""
    head = f"Content-Type: {headers['Content-Type']}\r\n\r\n".encode()
    (part,) = BytesParser().parsebytes(head + body).get_payload()
    content = part.get_payload(decode=True)  # type: ignore[union-attr]
    assert isinstance(content, bytes)
    return content
