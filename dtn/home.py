"""Where ``dtn`` keeps things, and what it uses when an option is not given."""

from __future__ import annotations

import os
from pathlib import Path


def home() -> Path:
    """``$DTN_HOME``, or ``~/.dtn``."""
    return Path(os.environ.get("DTN_HOME", "~/.dtn")).expanduser()


def devnet_home() -> Path:
    """The local network's folder."""
    return home() / "devnet"


def default_network() -> Path:
    """``$DTN_NETWORK``, or the local network's file."""
    given = os.environ.get("DTN_NETWORK")
    return Path(given) if given else devnet_home() / "network.json"


def default_client() -> Path:
    """``$DTN_CLIENT``, or the local network's client configuration."""
    given = os.environ.get("DTN_CLIENT")
    return Path(given) if given else devnet_home() / "roles" / "client.toml"
