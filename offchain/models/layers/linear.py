"""Dense and convolution: contractions of activations with weights.

Guarantees: the specification sums in int64; the fast path sums 8-bit limbs in float32 where
``bounds.py`` has proved every partial sum below 2**24, in slices where it has to.

On an accelerator a convolution is computed as one matrix product per kernel position: a convolution
library may choose a transforming algorithm (Winograd, FFT), which is not exact; a matrix product has
nothing to choose. On a CPU, XLA's convolution is direct, and faster.

Source: docs/exact-1.md, "Dense and convolution"; design section 7.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen
from numpy.typing import NDArray

from offchain.evaluation import arithmetic, arithmetic_jax
from offchain.evaluation.arithmetic import ACTIVATION_LIMIT, Activations
from offchain.evaluation.arithmetic_jax import Traced
from offchain.evaluation.bounds import Contraction, plan_contraction
from offchain.evaluation.quantise import Linear, quantise_linear
from offchain.models.layers.kind import LayerKind, Module
from protocol.architecture import Conv, Dense, Padding, Shape

Product = Callable[[jax.Array, jax.Array], jax.Array]


def _finish(sums: NDArray[Any], linear: Linear, fraction: NDArray[Any]) -> Activations:
    products = sums * linear.multiplier
    return arithmetic.accumulate(
        products, fraction + linear.multiplier_fraction, linear.bias, linear.bias_fraction
    )


def _contract(product: Product, inputs: Traced, linear: Linear, plan: Contraction) -> Traced:
    """All of the fast path that dense and convolution share; ``product`` is exact in float32."""
    weight = jnp.asarray(linear.weight).astype(jnp.float32)
    q, count = inputs.q, len(inputs.q)
    wide = jnp.dtype(plan.wide)
    pieces = q if plan.limbs == 1 else jnp.concatenate(arithmetic_jax.limbs(q))
    edges = [0, *np.cumsum([len(part) for part in np.array_split(np.arange(q.shape[-1]), plan.parts)])]
    sums = jnp.zeros((), wide)
    for start, stop in itertools.pairwise(edges):
        part = product(pieces[..., start:stop], weight[..., start:stop, :])
        if plan.limbs == 1:
            sums = sums + part.astype(wide)
        else:
            sums = sums + (256 * part[:count].astype(wide) + part[count:].astype(wide))
    products = sums * jnp.asarray(linear.multiplier).astype(wide)
    fraction = inputs.fraction + linear.multiplier_fraction
    bias = None if linear.bias is None else jnp.asarray(linear.bias)
    return arithmetic_jax.accumulate(products, fraction, bias, linear.bias_fraction)


def _dot(x: jax.Array, weight: jax.Array) -> jax.Array:
    return jnp.matmul(x, weight, precision=jax.lax.Precision.HIGHEST, preferred_element_type=jnp.float32)


class DenseKind(LayerKind[Dense]):
    """``y = x · kernel + bias``."""

    schema = Dense

    def prepare(self, layer: Dense, tensors: Mapping[str, NDArray[Any]]) -> Linear:
        return quantise_linear(tensors["kernel"], tensors.get("bias"))

    def plan(self, layer: Dense, shape: Shape, limit: int, prepared: Linear) -> tuple[Contraction, int]:
        return plan_contraction(prepared.weight, limit), ACTIVATION_LIMIT

    def module(self, layer: Dense, name: str) -> Module:
        return linen.Dense(layer.features, use_bias=layer.use_bias, name=name)

    def specification(self, layer: Dense, prepared: Linear, *inputs: Activations) -> Activations:
        (x,) = inputs
        return _finish(x.q @ prepared.weight.astype(np.int64), prepared, x.fraction)

    def exact(self, layer: Dense, prepared: Linear, plan: Contraction, *inputs: Traced) -> Traced:
        return _contract(_dot, inputs[0], prepared, plan)


def padding_of(size: int, window: int, stride: int, padding: Padding) -> tuple[int, int]:
    """Zeros before and after one axis; the odd one goes after (TensorFlow, XLA, Flax)."""
    if padding == "VALID":
        return 0, 0
    total = max((-(-size // stride) - 1) * stride + window - size, 0)
    return total // 2, total - total // 2


def pad_image(x: NDArray[Any], layer: Conv) -> NDArray[Any]:
    """``[n, height, width, channels]`` with its zero borders."""
    return np.pad(x, ((0, 0), *_borders(x.shape, layer), (0, 0)))


def _borders(shape: Shape, layer: Conv) -> tuple[tuple[int, int], tuple[int, int]]:
    (kernel_height, kernel_width), (down, right) = layer.kernel, layer.strides
    return (
        padding_of(shape[1], kernel_height, down, layer.padding),
        padding_of(shape[2], kernel_width, right, layer.padding),
    )


class ConvKind(LayerKind[Conv]):
    """Two-dimensional cross-correlation, channels last."""

    schema = Conv

    def prepare(self, layer: Conv, tensors: Mapping[str, NDArray[Any]]) -> Linear:
        return quantise_linear(tensors["kernel"], tensors.get("bias"))

    def plan(self, layer: Conv, shape: Shape, limit: int, prepared: Linear) -> tuple[Contraction, int]:
        return plan_contraction(prepared.weight, limit), ACTIVATION_LIMIT

    def module(self, layer: Conv, name: str) -> Module:
        return linen.Conv(
            layer.features,
            layer.kernel,
            layer.strides,
            layer.padding,
            use_bias=layer.use_bias,
            name=name,
        )

    def specification(self, layer: Conv, prepared: Linear, *inputs: Activations) -> Activations:
        (x,) = inputs
        sums: Any = np.int64(0)
        for place, weight in _taps(pad_image(x.q, layer), prepared.weight.astype(np.int64), layer):
            sums = sums + place @ weight
        return _finish(sums, prepared, x.fraction)

    def exact(self, layer: Conv, prepared: Linear, plan: Contraction, *inputs: Traced) -> Traced:
        direct = jax.default_backend() == "cpu"

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
            terms = [_dot(place, tap) for place, tap in _taps(padded, weight, layer)]
            return sum(terms[1:], start=terms[0])

        return _contract(product, inputs[0], prepared, plan)


def _taps(padded: Any, weight: Any, layer: Conv) -> Iterator[tuple[Any, Any]]:
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
