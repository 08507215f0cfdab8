"""Many small matrix products at once on CPUs: those of attention, one for each sample and head.

XLA's CPU backend computes them one after the other, each by way of a library that is made for large ones.

Source: design section 8 ("as fast as the best hand-written loop"); `python -m benchmarks.training`.
"""

from __future__ import annotations

import math
from contextlib import ExitStack
from dataclasses import astuple, dataclass

import jax

from offchain.models.native.custom_call import call
from offchain.models.native.loops import Loops, Value
from offchain.models.native.processor import Processor


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

    def __str__(self) -> str:
        return "_".join(map(str, (*map(int, astuple(self)[1:]), self.processor.sums)))


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
    shape, lanes = (*a.shape[:-2], rows, b.shape[-1]), processor.lanes_for(product.columns)
    return call(f"dtn_product_1_{product}", lanes, count, lambda loops: _write(loops, product), shape)(a, b)


def _write(loops: Loops, product: Product) -> None:
    """One product: a tile of neighbouring rows at a time, one or two vectors of each."""
    count, rows, inner, columns = product.count, product.rows, product.inner, product.columns
    vectors = product.processor.vectors_for(columns)
    tiles, tile = product.processor.tiles_for(rows, columns)
    together = loops.lanes * vectors
    with ExitStack() as inside:
        number = inside.enter_context(loops.counted(tiles))
        group = inside.enter_context(loops.counted(columns // together))
        column = loops.product(group, together)
        # The last tile ends with the last row, and computes some rows once more.
        row = loops.least(loops.product(number, tile), rows - tile)
        first: Value = row if product.causal and product.turned else 0
        terms: Value = inner
        if product.causal:
            terms = loops.difference(inner, row) if product.turned else loops.sum(row, tile)
        if product.below:
            terms = loops.select(loops.value(f"icmp ugt i64 {column}, {loops.sum(row, tile - 1)}"), 1, terms)
        totals = [[loops.vectors() for _ in range(vectors)] for _ in range(tile)]
        with loops.counted(terms) as step:
            term = loops.sum(first, step)
            if product.turned:
                at, apart = loops.place((count, inner, rows), "%chunk", term, row), 1
            else:
                at, apart = loops.place((count, rows, inner), "%chunk", row, term), inner
            a = loops.at("%a", at)
            b = loops.at("%b", loops.place((count, inner, columns), "%chunk", term, column))
            loaded = [loops.load(loops.at(b, loops.lanes * vector)) for vector in range(vectors)]
            for own, cells in enumerate(totals):
                loops.add_products(cells, loops.spread(loops.at(a, own * apart)), loaded)
        result = loops.at("%result", loops.place((count, rows, columns), "%chunk", row, column))
        loops.store_rows(totals, result, columns)
