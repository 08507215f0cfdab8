"""What a node registers as its endpoint: URLs with commas between, ``tcp://`` for links, ``http://`` for all.

Guarantees: these functions raise on no text whatever; a node may register any.

Source: PoT 3.1.2 (node info in the network's records).
"""

from __future__ import annotations


def link_address(endpoint: str) -> str | None:
    """Where the other aggregators reach it."""
    return next((url for url in endpoint.split(",") if url.startswith("tcp://")), None)


def api_address(endpoint: str) -> str | None:
    """The public API's URL, without a slash at its end."""
    found = next((url for url in endpoint.split(",") if url.startswith(("http://", "https://"))), None)
    return found.rstrip("/") if found is not None else None
