"""Where kernels of ours run: on which processor, and whether they were asked for.

Guarantees: a host where they cannot work is told apart before any is compiled for it, by compiling and
running the least of them.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Final

import jax
import jax.numpy as jnp

from offchain.models.native.custom_call import call
from offchain.models.native.loops import Loops

_LOG: Final = logging.getLogger(__name__)
_FEWEST_LANES: Final = 4
"""Of vectors that are worth a kernel."""


@dataclass(frozen=True, slots=True)
class Processor:
    """What the writing of a kernel depends on."""

    lanes: int
    """Floats in a vector."""
    sums: int
    """Vectors that are summed into at once, with registers to spare for what is multiplied."""

    def serves(self, columns: int) -> bool:
        """Whether rows of so many numbers are cut into vectors that are worth it."""
        return self.lanes_for(columns) >= _FEWEST_LANES

    def lanes_for(self, columns: int) -> int:
        """Floats in the widest vectors that such rows are cut into without rest."""
        return math.gcd(columns, self.lanes)

    def vectors_for(self, columns: int) -> int:
        """Neighbouring vectors of such a row that are summed at once, and share what they multiply."""
        return 2 if columns % (2 * self.lanes_for(columns)) == 0 else 1

    def tiles_for(self, rows: int, columns: int) -> tuple[int, int]:
        """How many tiles such rows are summed in, and how many rows each has; the last may overlap."""
        tiles = math.ceil(rows / (self.sums // self.vectors_for(columns)))
        return tiles, math.ceil(rows / tiles)


Ask = Callable[[], Processor | None]

_asked: ContextVar[Ask | None] = ContextVar("own_kernels", default=None)


@contextmanager
def own_kernels(ask: Ask | None) -> Iterator[None]:
    """Networks applied inside compute with kernels of ours, where there are any, on the processor that is
    the answer; only a network that has use for them asks.

    Not for a batch that is spread over devices: XLA would gather it for every such operation.
    """
    before = _asked.set(ask)
    try:
        yield
    finally:
        _asked.reset(before)


def wanted() -> Processor | None:
    """The processor of `own_kernels`; none outside."""
    ask = _asked.get()
    return None if ask is None else ask()


@cache
def processor() -> Processor | None:
    """This host's processor; None where no kernel of ours runs, and XLA's own do.

    They are for x86 processors with fused multiplication and addition; others are untried.
    """
    if os.name != "posix" or find_spec("llvmlite") is None:
        return None
    import llvmlite.binding as llvm

    features = llvm.get_host_cpu_features()
    if features.get("avx512f"):
        found = Processor(lanes=16, sums=16)
    elif features.get("avx2") and features.get("fma"):
        found = Processor(lanes=8, sums=12)
    else:
        return None
    try:
        _try(found.lanes)
    except Exception as error:
        _LOG.warning("no kernels of our own here, training is slower on this CPU: %s", error)
        return None
    return found


def _try(lanes: int) -> None:
    """Let the least of kernels compute something: XLA may have changed how it calls one.

    Raises:
        Exception: whatever LLVM or XLA refuses it with.
        ArithmeticError: it computes something else.
    """

    def write(loops: Loops) -> None:
        total = loops.vectors(loops.load("%a"))
        loops.add_products([total], loops.load("%a"), [loops.load("%b")])
        loops.store(total.get(), "%result")

    called = call("dtn_trial", lanes, 1, write, (lanes,))
    with jax.ensure_compile_time_eval():
        numbers = jnp.arange(lanes, dtype=jnp.float32)
        found = jax.jit(called)(numbers, numbers + 1)
        if not jnp.array_equal(found, numbers * (numbers + 2)):
            raise ArithmeticError(f"a trial kernel computed {found}")
