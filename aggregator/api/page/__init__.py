"""The web page that every aggregator serves at ``/``: static files, read once, under a strict policy.

Guarantees: no inline script or style runs, nothing is fetched but from this aggregator and from the members
of its committee, and nothing may frame the page. The members' addresses are what they registered, so they
enter the policy only as far as they are plain origins.
"""

from __future__ import annotations

import hashlib
import re
from importlib import resources
from typing import Final

from fastapi import FastAPI, Request
from fastapi.responses import Response

from aggregator.node import Aggregator
from protocol.endpoint import api_address

MEDIA_TYPES: Final = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
_ORIGIN: Final = re.compile(r"https?://([a-zA-Z0-9.-]{1,253}|\[[0-9a-fA-F:]{2,39}\])(:\d{1,5})?")


def origins(node: Aggregator) -> list[str]:
    """Origins of the committee's registered APIs; what is not one is left out."""
    known = (node.state.nodes.get(account) for account in node.members.addresses)
    urls = (api_address(entry.endpoint) for entry in known if entry is not None)
    matches = (_ORIGIN.match(url) for url in urls if url is not None)
    return sorted({match[0] for match in matches if match is not None})


def policy(node: Aggregator) -> str:
    """The page's Content-Security-Policy."""
    connect = " ".join(["'self'", *origins(node)])
    return (
        f"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src {connect}; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def add_page(app: FastAPI, node: Aggregator) -> None:
    """Serve the page at ``/`` and its parts under ``/page``."""
    parts: dict[str, tuple[bytes, str, str]] = {}
    for part in resources.files(__package__).iterdir():
        media_type = MEDIA_TYPES.get(part.name.rpartition(".")[2])
        if media_type is not None:
            data = part.read_bytes()
            parts[part.name] = (data, media_type, f'"{hashlib.sha256(data).hexdigest()[:32]}"')

    def serve(request: Request, name: str) -> Response:
        data, media_type, tag = parts[name]
        headers = {
            "ETag": tag,
            "Cache-Control": "no-cache",
            "Content-Security-Policy": policy(node),
            "Referrer-Policy": "no-referrer",
        }
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(data, media_type=media_type, headers=headers)

    def add(path: str, name: str) -> None:
        @app.get(path, include_in_schema=False)
        async def part(request: Request) -> Response:
            return serve(request, name)

    add("/", "index.html")
    for name in parts:
        add(f"/page/{name}", name)
