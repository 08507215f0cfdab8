"""Many small matrix products at once on CPUs: those of attention, one for each sample and head.

XLA's CPU backend computes them one after the other, each by way of a library that is made for large ones.

Source: design section 8 ("as fast as the best hand-written loop"); `python -m benchmarks.training`.
"""

from __future__ import annotations

import math
from contextlib import ExitStack
from dataclasses import astuple, dataclass

import jax

from offchain.models.native.custom_call import FEWEST_LANES, Processor, call
from offchain.models.native.loops import Loops, Value


@dataclass(frozen=True, slots=True)
class Product:
    """The sizes of ``count`` products ``[rows, inner] @ [inner, columns]``, and what computes them."""

    processor: Processor
    count: int
    rows: int
    inner: int
    columns: int
    turned: bool
    """Whether the first matrix lies in memory as ``[inner, rows]``."""
    causal: bool
    """Whether the first matrix as it lies in memory is square, and zero above its diagonal."""
    below: bool
    """Whether nobody looks at what the result has above its diagonal."""

    @property
    def lanes(self) -> int:
        return math.gcd(self.columns, self.processor.lanes)

    @property
    def vectors(self) -> int:
        """Of a row of the result, that are summed at once."""
        return 2 if self.columns % (2 * self.lanes) == 0 else 1

    def __str__(self) -> str:
        return "_".join(map(str, (*map(int, astuple(self)[1:]), self.processor.sums)))


def multipliable(columns: int, processor: Processor) -> bool:
    """Whether products with so many columns are computed here."""
    return math.gcd(columns, processor.lanes) >= FEWEST_LANES


def multiply(
    processor: Processor,
    a: jax.Array,
    b: jax.Array,
    *,
    turned: bool = False,
    causal: bool = False,
    below: bool = False,
) -> jax.Array:
    """``a @ b`` over their last two axes, or ``a.swapaxes(-1, -2) @ b`` if ``turned``.

    Args:
        causal: ``a`` is square and zero above its diagonal.
        below: the result may be anything finite above its diagonal, if the operands are finite.
    """
    rows, inner = a.shape[:-3:-1] if turned else a.shape[-2:]
    count = math.prod(a.shape[:-2])
    product = Product(processor, count, rows, inner, b.shape[-1], turned, causal, below)
    shape = (*a.shape[:-2], rows, b.shape[-1])
    return call(
        f"dtn_product_1_{product}", product.lanes, count, lambda loops: _write(loops, product), shape
    )(a, b)


def _write(loops: Loops, product: Product) -> None:
    """One product: a tile of neighbouring rows at a time, one or two vectors of each."""
    together = product.lanes * product.vectors
    tiles = math.ceil(product.rows / (product.processor.sums // product.vectors))
    tile = math.ceil(product.rows / tiles)
    a_size = (
        (product.count, product.inner, product.rows)
        if product.turned
        else (product.count, product.rows, product.inner)
    )
    with ExitStack() as inside:
        number = inside.enter_context(loops.counted(tiles))
        group = inside.enter_context(loops.counted(product.columns // together))
        column = loops.product(group, together)
        # The last tile ends with the last row, and computes some rows once more.
        row = loops.least(loops.product(number, tile), product.rows - tile)
        first: Value = row if product.causal and product.turned else 0
        terms: Value = product.inner
        if product.causal:
            terms = loops.difference(product.inner, row) if product.turned else loops.sum(row, tile)
        if product.below:
            terms = loops.select(loops.value(f"icmp ugt i64 {column}, {loops.sum(row, tile - 1)}"), 1, terms)
        totals = [[loops.vectors() for _ in range(product.vectors)] for _ in range(tile)]
        with loops.counted(terms) as step:
            term = loops.sum(first, step)
            at = (
                loops.place(a_size, "%chunk", term, row)
                if product.turned
                else loops.place(a_size, "%chunk", row, term)
            )
            a = loops.at("%a", at)
            b = loops.at(
                "%b", loops.place((product.count, product.inner, product.columns), "%chunk", term, column)
            )
            loaded = [loops.load(loops.at(b, product.lanes * vector)) for vector in range(product.vectors)]
            for own, cells in enumerate(totals):
                value = loops.spread(loops.at(a, own if product.turned else own * product.inner))
                loops.add_products(cells, value, loaded)
        result = loops.at(
            "%result", loops.place((product.count, product.rows, product.columns), "%chunk", row, column)
        )
        loops.store_rows(totals, result, product.columns)
