"""Dense, convolution and depthwise convolution.

Guarantees: as in ``contraction.py``: exact sums, whatever container they are computed in.

On an accelerator a convolution is computed as one matrix product per kernel position: a convolution
library may choose a transforming algorithm (Winograd, FFT), which is not exact; a matrix product has
nothing to choose. On a CPU, XLA's float32 convolution is direct, and faster.

Source: docs/exact-1.md, "Dense and convolution"; design section 7.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen
from numpy.typing import NDArray

from offchain.evaluation import arithmetic, arithmetic_jax
from offchain.evaluation.arithmetic import ACTIVATION_LIMIT, Activations
from offchain.evaluation.arithmetic_jax import Traced
from offchain.evaluation.bounds import Contraction, Way, plan_contraction
from offchain.evaluation.place import on_cpu
from offchain.evaluation.quantise import Linear, quantise_linear
from offchain.models.layers.contraction import contract, dense, dot, finish, sums_of
from offchain.models.layers.kernel_gradient import convolve as convolve_by_xla
from offchain.models.layers.kind import LayerKind, Module
from offchain.models.layers.rows import RowsDense, on_rows
from offchain.models.native.convolution import convolve, direct
from protocol.architecture import Conv, Dense, DepthwiseConv, Padding, Shape


class DenseKind(LayerKind[Dense]):
    """``y = x · kernel + bias``."""

    schema = Dense

    def prepare(self, layer: Dense, tensors: Mapping[str, NDArray[Any]]) -> Linear:
        return quantise_linear(tensors["kernel"], tensors.get("bias"))

    def plan(
        self, layer: Dense, shape: Shape, limit: int, prepared: Linear, way: Way
    ) -> tuple[Contraction, int]:
        return plan_contraction(prepared.weight, limit, way.weights), ACTIVATION_LIMIT

    def module(self, layer: Dense, name: str, training: bool) -> Module:
        return on_rows(RowsDense(layer.features, layer.use_bias, name=name))

    def specification(self, layer: Dense, prepared: Linear, *inputs: Activations) -> Activations:
        return arithmetic.normalise(*dense(inputs[0], prepared))

    def exact(self, layer: Dense, prepared: Linear, plan: Contraction, *inputs: Traced) -> Traced:
        return arithmetic_jax.normalise(*contract(dot, inputs[0], prepared, plan))


def padding_of(size: int, window: int, stride: int, padding: Padding) -> tuple[int, int]:
    """Zeros before and after one axis; the odd one goes after (TensorFlow, XLA, Flax)."""
    if padding == "VALID":
        return 0, 0
    total = max((-(-size // stride) - 1) * stride + window - size, 0)
    return total // 2, total - total // 2


def pad_image(x: NDArray[Any], layer: Conv | DepthwiseConv) -> NDArray[Any]:
    """``[n, height, width, channels]`` with its zero borders."""
    return np.pad(x, ((0, 0), *_borders(x.shape, layer), (0, 0)))


def _borders(shape: Shape, layer: Conv | DepthwiseConv) -> tuple[tuple[int, int], tuple[int, int]]:
    (kernel_height, kernel_width), (down, right) = layer.kernel, layer.strides
    return (
        padding_of(shape[1], kernel_height, down, layer.padding),
        padding_of(shape[2], kernel_width, right, layer.padding),
    )


_FEW_COLUMNS: Final = 16


def _convolution(layer: Conv) -> Callable[..., jax.Array]:
    """What Flax calls for the layer's sums: on a CPU one matrix product, where its rows are short.

    XLA's CPU convolution of a grey image spends most of its time on packing single numbers.
    """

    def compute(x: jax.Array, kernel: jax.Array, *arguments: Any, **options: Any) -> jax.Array:
        if jax.default_backend() != "cpu":
            return jax.lax.conv_general_dilated(x, kernel, *arguments, **options)
        if on := direct(x, kernel):
            return convolve(on, x, kernel, layer.strides, _borders(x.shape, layer))
        if math.prod(kernel.shape[:3]) > _FEW_COLUMNS:
            return convolve_by_xla(x, kernel, *arguments, **options)
        padded = jnp.pad(x, ((0, 0), *_borders(x.shape, layer), (0, 0)))
        columns = jnp.concatenate([place for place, _ in _taps(padded, kernel, layer)], axis=-1)
        return on_rows(lambda rows: rows @ kernel.reshape(-1, layer.features))(columns)

    return compute


class ConvKind(LayerKind[Conv]):
    """Two-dimensional cross-correlation, channels last."""

    schema = Conv

    def prepare(self, layer: Conv, tensors: Mapping[str, NDArray[Any]]) -> Linear:
        return quantise_linear(tensors["kernel"], tensors.get("bias"))

    def plan(
        self, layer: Conv, shape: Shape, limit: int, prepared: Linear, way: Way
    ) -> tuple[Contraction, int]:
        return plan_contraction(prepared.weight, limit, way.weights), ACTIVATION_LIMIT

    def module(self, layer: Conv, name: str, training: bool) -> Module:
        return linen.Conv(
            layer.features,
            layer.kernel,
            layer.strides,
            layer.padding,
            use_bias=layer.use_bias,
            name=name,
            conv_general_dilated=_convolution(layer),
        )

    def specification(self, layer: Conv, prepared: Linear, *inputs: Activations) -> Activations:
        (x,) = inputs
        sums: Any = np.int64(0)
        for place, weight in _taps(pad_image(x.q, layer), prepared.weight.astype(np.int64), layer):
            sums = sums + place @ weight
        return arithmetic.normalise(*finish(sums, prepared, x.fraction))

    def exact(self, layer: Conv, prepared: Linear, plan: Contraction, *inputs: Traced) -> Traced:
        # XLA's own convolutions of anything else on a CPU are loops without vectors.
        direct = on_cpu() and plan.container == "float32"

        def product(x: jax.Array, weight: jax.Array) -> jax.Array:
            if direct:
                return jax.lax.conv_general_dilated(
                    x,
                    weight,
                    layer.strides,
                    layer.padding,
                    dimension_numbers=("NHWC", "HWIO", "NHWC"),
                    precision=jax.lax.Precision.HIGHEST,
                    preferred_element_type=jnp.float32,
                )
            padded = jnp.pad(x, ((0, 0), *_borders(x.shape, layer), (0, 0)))
            terms = [dot(place, tap) for place, tap in _taps(padded, weight, layer)]
            return sum(terms[1:], start=terms[0])

        return arithmetic_jax.normalise(*contract(product, inputs[0], prepared, plan))


def _taps(padded: Any, weight: Any, layer: Conv | DepthwiseConv) -> Iterator[tuple[Any, Any]]:
    """For each kernel position: the inputs under it for every output position, and its weights.

    Arrays of NumPy or of JAX.
    """
    (height, width), (down, right) = layer.kernel, layer.strides
    rows = (padded.shape[1] - height) // down + 1
    columns = (padded.shape[2] - width) // right + 1
    for i in range(height):
        for j in range(width):
            place = padded[:, i : i + (rows - 1) * down + 1 : down, j : j + (columns - 1) * right + 1 : right]
            yield place, weight[i, j]


class DepthwiseConvKind(LayerKind[DepthwiseConv]):
    """Each channel with its own window."""

    schema = DepthwiseConv

    def prepare(self, layer: DepthwiseConv, tensors: Mapping[str, NDArray[Any]]) -> Linear:
        return quantise_linear(tensors["kernel"], tensors.get("bias"))

    def plan(
        self, layer: DepthwiseConv, shape: Shape, limit: int, prepared: Linear, way: Way
    ) -> tuple[Contraction, int]:
        return plan_contraction(prepared.weight, limit, way.weights), ACTIVATION_LIMIT

    def module(self, layer: DepthwiseConv, name: str, training: bool) -> Module:
        return lambda x: linen.Conv(
            x.shape[-1],
            layer.kernel,
            layer.strides,
            layer.padding,
            feature_group_count=x.shape[-1],
            use_bias=layer.use_bias,
            name=name,
        )(x)

    def specification(self, layer: DepthwiseConv, prepared: Linear, *inputs: Activations) -> Activations:
        (x,) = inputs
        sums: Any = np.int64(0)
        for place, weight in _taps(pad_image(x.q, layer), prepared.weight.astype(np.int64), layer):
            sums = sums + place * weight[0]
        return arithmetic.normalise(*finish(sums, prepared, x.fraction))

    def exact(self, layer: DepthwiseConv, prepared: Linear, plan: Contraction, *inputs: Traced) -> Traced:
        def product(x: jax.Array, weight: jax.Array) -> jax.Array:
            wide = sums_of(x.dtype)
            padded = jnp.pad(x.astype(wide), ((0, 0), *_borders(x.shape, layer), (0, 0)))
            terms = [place * tap[0] for place, tap in _taps(padded, weight.astype(wide), layer)]
            return sum(terms[1:], start=terms[0])

        return arithmetic_jax.normalise(*contract(product, inputs[0], prepared, plan))
