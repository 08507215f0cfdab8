"""What every contraction of activations with weights has in common: the sum, its scale, its bias.

Guarantees: the specification sums in int64; the fast path sums in the container for which ``bounds.py``
has proved every partial sum, in limbs and slices where it has to, and goes on in float64 or int64 as
proved. Both return wide integers and their fraction, for the layer to normalise.

Source: docs/exact-1.md, "Dense and convolution"; design section 7.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from offchain.evaluation import arithmetic, arithmetic_jax
from offchain.evaluation.arithmetic import Activations
from offchain.evaluation.arithmetic_jax import Traced
from offchain.evaluation.bounds import Contraction
from offchain.evaluation.quantise import Linear

Product = Callable[[jax.Array, jax.Array], jax.Array]
"""Of inputs and weights, both in the container's operands; exact as long as every partial sum fits."""


def finish(sums: NDArray[Any], linear: Linear, fraction: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Sums of weights times activations, scaled and biased."""
    products = sums * linear.multiplier
    return arithmetic.accumulate(
        products, fraction + linear.multiplier_fraction, linear.bias, linear.bias_fraction
    )


def dense(x: Activations, linear: Linear) -> tuple[NDArray[Any], NDArray[Any]]:
    """``x · kernel + bias`` over the last axis, wide."""
    return finish(x.q @ linear.weight.astype(np.int64), linear, x.fraction)


def scaled_sums(product: Product, q: jax.Array, linear: Linear, plan: Contraction) -> jax.Array:
    """Sums of weights times activations, times the multipliers, in the container that the plan names."""
    weight = jnp.asarray(linear.weight).astype(plan.container)
    count, wide = len(q), jnp.dtype(plan.wide)
    pieces = q if plan.limbs == 1 else jnp.concatenate(arithmetic_jax.limbs(q))
    pieces = pieces.astype(plan.container)
    edges = [0, *np.cumsum([len(part) for part in np.array_split(np.arange(q.shape[-1]), plan.parts)])]
    sums = jnp.zeros((), wide)
    for start, stop in itertools.pairwise(edges):
        part = product(pieces[..., start:stop], weight[..., start:stop, :])
        if plan.limbs == 1:
            sums = sums + part.astype(wide)
        else:
            sums = sums + (256 * part[:count].astype(wide) + part[count:].astype(wide))
    return sums * jnp.asarray(linear.multiplier).astype(wide)


def contract(
    product: Product, inputs: Traced, linear: Linear, plan: Contraction
) -> tuple[jax.Array, jax.Array]:
    """All of the fast path that contractions share; wide integers and their fraction."""
    products = scaled_sums(product, inputs.q, linear, plan)
    fraction = inputs.fraction + linear.multiplier_fraction
    bias = None if linear.bias is None else jnp.asarray(linear.bias)
    return arithmetic_jax.accumulate(products, fraction, bias, linear.bias_fraction)


def sums_of(operands: Any) -> Any:
    """The type in which a container's terms are added up."""
    return jnp.int32 if operands == jnp.int8 else operands


def dot(x: jax.Array, weight: jax.Array) -> jax.Array:
    """``x · weight`` over the last axis of ``x``, in the sums of their container and nothing less."""
    return jnp.matmul(x, weight, precision=jax.lax.Precision.HIGHEST, preferred_element_type=sums_of(x.dtype))
