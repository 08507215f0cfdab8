"""Keeps the memory that a step has freed for the next step, instead of handing it back to the system.

XLA takes the temporaries of every program that it runs from the C library and frees them at its end. GNU's
hands pieces beyond 32 MiB back at once, so that every step has thousands of fresh pages mapped and cleared:
8,400 per step of the benchmark's resnet, a tenth of its time. Guarantees: changes no value; the process keeps
what it has taken at its peak; where there is no such C library, nothing happens.

Source: design section 8; mallopt(3).
"""

from __future__ import annotations

import ctypes
from typing import Final

_TRIM_THRESHOLD: Final = -1
_MMAP_MAX: Final = -4
"""Names of `mallopt`'s parameters, from malloc.h."""
_NEVER: Final = 2**31 - 1


def keep_freed_memory() -> bool:
    """For this process, from now on; whether its C library knows how."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, _NEVER))
