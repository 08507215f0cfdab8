"""Serving public blocks over HTTP, as a trustless gateway (ipfs/specs, "Trustless Gateway").

``GET /ipfs/CID?format=raw`` answers with the block; the reader checks it. Nothing but public blocks leaves.
"""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.responses import PlainTextResponse, Response

from offchain.serving import HttpServer
from offchain.storage.cid import Cid, InvalidCid
from offchain.storage.embedded import EmbeddedStore


class Gateway(HttpServer):
    """Serves one store's public blocks from a thread of its own.

    Raises:
        CannotServe: the address is taken.
    """

    def __init__(self, store: EmbeddedStore, host: str = "127.0.0.1", port: int = 0) -> None:
        super().__init__(_app(store), "gateway", host, port)


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
