"""Versions: of the rules that all members must share, and of this software.

``PROTOCOL_VERSION`` grows with every change after which two builds would execute the same batches to
different ledgers, or would not understand each other's messages. ``/v1/status`` says it.
"""

from __future__ import annotations

import functools
from importlib import metadata
from typing import Final

PROTOCOL_VERSION: Final = 1


@functools.cache
def software_version() -> str:
    """The version of the installed distribution; ``unknown`` for a bare checkout."""
    try:
        return metadata.version("proof-of-training")
    except metadata.PackageNotFoundError:
        return "unknown"
