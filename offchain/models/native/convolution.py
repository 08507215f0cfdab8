"""Convolutions on CPUs, direct: sums stay in registers, and neighbouring outputs share every weight.

XLA's own CPU convolution copies every input once per kernel position before it multiplies, and makes the
kernel's gradient from transposed inputs. With the few channels of small networks that takes longer than the
sums themselves.

Source: design section 8 ("as fast as the best hand-written loop"); Georganas et al. 2018, "Anatomy of
high-performance deep learning convolutions on SIMD architectures"; `python -m benchmarks.training`.
"""

from __future__ import annotations

import math
from contextlib import ExitStack
from dataclasses import astuple, dataclass, replace
from typing import Any, Final

import jax
import jax.numpy as jnp

from offchain.models.native.custom_call import call
from offchain.models.native.loops import Loops
from offchain.models.native.processor import Processor, wanted

Borders = tuple[tuple[int, int], tuple[int, int]]
"""Zeros before and after the rows, and the columns."""

_MOST_WEIGHTS: Final = 1 << 18
"""A megabyte. Larger kernels leave a core's cache between two rows of outputs, and XLA's products win."""
_MOST_PARTS: Final = 16
"""Of a batch, whose kernel gradients are summed apart, on whatever cores are free."""


@dataclass(frozen=True, slots=True)
class Convolution:
    """The sizes of one whose input has its borders, and what computes it.

    ``x [n, rows, columns, inputs]`` and ``kernel [down, right, inputs, outputs]`` give
    ``y [n, height, width, outputs]``.
    """

    processor: Processor
    samples: int
    height: int
    width: int
    inputs: int
    outputs: int
    down: int
    right: int
    strides: tuple[int, int]
    """Between outputs: rows and columns of the input."""

    @property
    def x(self) -> tuple[int, int, int, int]:
        """The part of the input that is read."""
        rows = (self.height - 1) * self.strides[0] + self.down
        columns = (self.width - 1) * self.strides[1] + self.right
        return self.samples, rows, columns, self.inputs

    @property
    def kernel(self) -> tuple[int, int, int, int]:
        return self.down, self.right, self.inputs, self.outputs

    @property
    def y(self) -> tuple[int, int, int, int]:
        return self.samples, self.height, self.width, self.outputs

    @property
    def parts(self) -> int:
        """Into how many the kernel's gradient is summed."""
        return math.gcd(self.samples, _MOST_PARTS)

    @property
    def lanes(self) -> int:
        return self.processor.lanes_for(self.outputs)

    @property
    def vectors(self) -> int:
        return self.processor.vectors_for(self.outputs)

    def __str__(self) -> str:
        return "_".join(map(str, (*astuple(self)[1:-1], *self.strides, self.processor.sums)))


def direct(x: jax.Array, kernel: jax.Array) -> Processor | None:
    """What `convolve` is to compute a convolution on; None if XLA is to."""
    if kernel.size > _MOST_WEIGHTS or not x.dtype == kernel.dtype == jnp.float32:
        return None
    found = wanted()
    return found if found is not None and found.serves(kernel.shape[-1]) else None


def convolve(
    on: Processor, x: jax.Array, kernel: jax.Array, strides: tuple[int, int], borders: Borders
) -> jax.Array:
    """The cross-correlation of ``x [n, height, width, channels]`` and
    ``kernel [down, right, channels, features]``.

    The sums are those of the definition, in another order.
    """
    shape, (down, right, inputs, outputs) = x.shape, kernel.shape
    height = (shape[1] + sum(borders[0]) - down) // strides[0] + 1
    width = (shape[2] + sum(borders[1]) - right) // strides[1] + 1
    sizes = Convolution(on, len(x), height, width, inputs, outputs, down, right, strides)

    def forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, Any]:
        read = _bordered(x, borders)[:, : sizes.x[1], : sizes.x[2]]
        return _outputs(sizes, read, kernel), (read, kernel)

    def backward(kept: Any, change: jax.Array) -> tuple[jax.Array, jax.Array]:
        read, kernel = kept
        along_x = _input_gradient(sizes, shape, kernel, change, borders)
        return along_x, _kernel_gradient(sizes, read, change)

    differentiable = jax.custom_vjp(lambda x, kernel: forward(x, kernel)[0])
    differentiable.defvjp(forward, backward)
    return differentiable(x, kernel)


def _bordered(x: jax.Array, borders: Borders) -> jax.Array:
    return jnp.pad(x, ((0, 0), *borders, (0, 0)))


def _outputs(sizes: Convolution, x: jax.Array, kernel: jax.Array) -> jax.Array:
    return call(
        f"dtn_convolution_1_{sizes}",
        sizes.lanes,
        sizes.samples,
        lambda loops: _write_outputs(loops, sizes),
        sizes.y,
    )(x, kernel)


def _input_gradient(
    sizes: Convolution, shape: tuple[int, ...], kernel: jax.Array, change: jax.Array, borders: Borders
) -> jax.Array:
    """The outputs' gradient convolved with the kernel turned round; of outputs that lie apart, XLA's."""
    if sizes.strides != (1, 1) or not sizes.processor.serves(sizes.inputs):

        def plain(x: jax.Array) -> jax.Array:
            layout = ("NHWC", "HWIO", "NHWC")
            return jax.lax.conv_general_dilated(x, kernel, sizes.strides, borders, dimension_numbers=layout)

        return jax.linear_transpose(plain, jax.ShapeDtypeStruct(shape, jnp.float32))(change)[0]
    (above, below), (before, after) = borders
    rows, columns = sizes.down - 1, sizes.right - 1
    spread = _bordered(change, ((rows - above, rows - below), (columns - before, columns - after)))
    _, height, width, inputs = shape
    back = replace(sizes, height=height, width=width, inputs=sizes.outputs, outputs=inputs)
    return _outputs(back, spread, kernel[::-1, ::-1].swapaxes(2, 3))


def _kernel_gradient(sizes: Convolution, x: jax.Array, change: jax.Array) -> jax.Array:
    return call(
        f"dtn_kernel_gradient_1_{sizes}_{sizes.parts}",
        sizes.lanes,
        sizes.parts,
        lambda loops: _write_kernel_gradient(loops, sizes),
        (sizes.parts, *sizes.kernel),
    )(x, change).sum(axis=0)


def _write_outputs(loops: Loops, sizes: Convolution) -> None:
    """One sample: of every row, a tile of neighbouring outputs at a time, with some of their channels."""
    together = sizes.lanes * sizes.vectors
    tiles, tile = sizes.processor.tiles_for(sizes.width, sizes.outputs)
    with ExitStack() as inside:
        row = inside.enter_context(loops.counted(sizes.height))
        group = inside.enter_context(loops.counted(sizes.outputs // together))
        number = inside.enter_context(loops.counted(tiles))
        channel = loops.product(group, together)
        # The last tile ends with the row, and computes some of its outputs once more.
        left = loops.least(loops.product(number, tile), sizes.width - tile)
        totals = [[loops.vectors() for _ in range(sizes.vectors)] for _ in range(tile)]
        with loops.counted(sizes.down) as down:
            above = loops.sum(loops.product(row, sizes.strides[0]), down)
            start = loops.place(sizes.x, "%chunk", above, loops.product(left, sizes.strides[1]))
            inputs = loops.at("%a", start)
            weights = loops.at("%b", loops.place(sizes.kernel, down, 0, 0, channel))
            # Columns of the kernel and channels lie one after the other, in the input as in the kernel.
            with loops.counted(sizes.right * sizes.inputs) as entry:
                own = loops.at(weights, loops.product(entry, sizes.outputs))
                loaded = [loops.load(loops.at(own, sizes.lanes * vector)) for vector in range(sizes.vectors)]
                value_at = loops.at(inputs, entry)
                for output, cells in enumerate(totals):
                    apart = output * sizes.strides[1] * sizes.inputs
                    loops.add_products(cells, loops.spread(loops.at(value_at, apart)), loaded)
        result = loops.at("%result", loops.place(sizes.y, "%chunk", row, left, channel))
        loops.store_rows(totals, result, sizes.outputs)


def _write_kernel_gradient(loops: Loops, sizes: Convolution) -> None:
    """The sum over the samples of one part: some of the kernel's entries at a time, over a whole sample."""
    together, entries = sizes.lanes * sizes.vectors, sizes.right * sizes.inputs
    block = max(size for size in range(1, sizes.processor.sums // sizes.vectors + 1) if entries % size == 0)
    result = (sizes.parts, sizes.down, entries, sizes.outputs)
    own_result = loops.at("%result", loops.place(result, "%chunk"))
    with loops.counted(math.prod(result[1:]) // sizes.lanes) as vector:
        loops.store("zeroinitializer", loops.at(own_result, loops.product(vector, sizes.lanes)))
    each = sizes.samples // sizes.parts
    with ExitStack() as inside:
        sample = loops.sum(loops.product("%chunk", each), inside.enter_context(loops.counted(each)))
        down = inside.enter_context(loops.counted(sizes.down))
        entry = loops.product(inside.enter_context(loops.counted(entries // block)), block)
        group = inside.enter_context(loops.counted(sizes.outputs // together))
        channel = loops.product(group, together)
        totals_at = loops.at("%result", loops.place(result, "%chunk", down, entry, channel))
        totals = [
            [
                loops.vectors(loops.load(loops.at(totals_at, row * sizes.outputs + sizes.lanes * vector)))
                for vector in range(sizes.vectors)
            ]
            for row in range(block)
        ]
        with loops.counted(sizes.height) as row:
            above = loops.sum(loops.product(row, sizes.strides[0]), down)
            inputs = loops.at("%a", loops.sum(loops.place(sizes.x, sample, above), entry))
            changes = loops.at("%b", loops.place(sizes.y, sample, row, 0, channel))
            with loops.counted(sizes.width) as column:
                own = loops.at(changes, loops.product(column, sizes.outputs))
                loaded = [loops.load(loops.at(own, sizes.lanes * vector)) for vector in range(sizes.vectors)]
                value_at = loops.at(inputs, loops.product(column, sizes.strides[1] * sizes.inputs))
                for number, cells in enumerate(totals):
                    loops.add_products(cells, loops.spread(loops.at(value_at, number)), loaded)
        loops.store_rows(totals, totals_at, sizes.outputs)
