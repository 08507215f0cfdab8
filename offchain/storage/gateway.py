"""Serving public blocks over HTTP, as a trustless gateway (ipfs/specs, "Trustless Gateway").

``GET /ipfs/CID?format=raw`` answers with the block; the reader checks it. Nothing but public blocks leaves.
"""

from __future__ import annotations

import socket
import threading
import time

import uvicorn
from fastapi import FastAPI
from fastapi.responses import PlainTextResponse, Response

from offchain.storage.cid import Cid, InvalidCid
from offchain.storage.embedded import EmbeddedStore
from protocol.errors import ProtocolError

START_TIMEOUT_S = 10.0


class GatewayError(ProtocolError):
    """The gateway cannot serve as configured."""


class Gateway:
    """Serves one store's public blocks from a thread of its own."""

    def __init__(self, store: EmbeddedStore, host: str = "127.0.0.1", port: int = 0) -> None:
        """Bind at once, so that `url` is known; port 0 takes a free one.

        Raises:
            GatewayError: the address is taken.
        """
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind((host, port))
            # At once: until one of them listens, two processes may bind the same address.
            self._socket.listen()
        except OSError as reason:
            self._socket.close()
            raise GatewayError(
                f"cannot serve on {host}:{port}: {reason.strerror}; choose another port"
            ) from reason
        self.url = f"http://{host}:{self._socket.getsockname()[1]}"
        config = uvicorn.Config(
            _app(store), log_level="warning", access_log=False, limit_concurrency=256, lifespan="off"
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._serve, name="gateway", daemon=True)

    def _serve(self) -> None:
        self._server.run(sockets=[self._socket])

    def start(self) -> None:
        """Serve until `stop`."""
        self._thread.start()
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._server.started:
            if time.monotonic() > deadline or not self._thread.is_alive():
                raise GatewayError(f"the gateway at {self.url} did not start")
            time.sleep(0.01)

    def stop(self) -> None:
        """Stop serving; returns when the thread is gone."""
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join(timeout=5)
        self._socket.close()


def _app(store: EmbeddedStore) -> FastAPI:
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.api_route("/ipfs/{text}", methods=["GET", "HEAD"])
    def block(text: str) -> Response:
        try:
            cid = Cid.parse(text)
        except InvalidCid as reason:
            return PlainTextResponse(str(reason), 400)
        data = store.public_block(cid)
        if data is None:
            return PlainTextResponse(f"{cid} is not public here", 404)
        headers = {
            "Cache-Control": "public, max-age=31536000, immutable",
            "X-Content-Type-Options": "nosniff",
        }
        return Response(data, media_type="application/vnd.ipld.raw", headers=headers)

    return app
