"""The compiled heart of training: many optimiser steps in one dispatch, nothing of it on the host.

Guarantees: data and state stay on the device, the state's buffers are donated, and each step's random
numbers follow from the seed and the step's number alone, so that a resumed run draws what the
uninterrupted one would have drawn. The number of steps per dispatch is an argument, not a shape: changing
it compiles nothing. On accelerators the arithmetic is bfloat16 over float32 masters.

Source: design section 8; the loop is that of nanoGPT and Flax's examples, moved onto the device.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from offchain.data import Fragment
from offchain.models.layers.softmax import cross_entropy
from offchain.models.native.processor import own_kernels, processor
from offchain.models.network import Parameters, build, initialise, with_statistics
from protocol.architecture import Architecture


class Data(NamedTuple):
    """Training samples on the device."""

    x: jax.Array
    """``[n, *input_shape]`` float32 or uint8."""
    y: jax.Array
    """``[n]`` int32."""


class State(NamedTuple):
    """All that a step changes."""

    parameters: Parameters
    optimiser: Any
    step: jax.Array
    """int32: steps done."""


class Recipe(NamedTuple):
    """What of a configuration the compiled program depends on."""

    batch_size: int
    learning_rate: float
    weight_decay: float
    warmup_steps: int
    schedule_steps: int | None
    """Steps over which the rate falls; None if it comes with each dispatch."""
    shift: int
    """Images are moved by up to so many pixels, anew each time they are drawn."""


LEAST_RATE: Final = 0.05
"""What is left of the learning rate after ``schedule_steps``."""

Dispatch = Callable[[State, Data, jax.Array, Any, Any], tuple[State, jax.Array]]
"""``(state, data, key, steps, rate)`` to the state after that many steps and their mean loss.

``rate`` multiplies the learning rate; it is 1 where the recipe has a schedule of its own.
"""


def optimiser(recipe: Recipe) -> optax.GradientTransformation:
    """AdamW with clipped gradients, before the learning rate (see `learning_rate`)."""
    return optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.scale_by_adam(),
        optax.add_decayed_weights(recipe.weight_decay),
    )


def learning_rate(recipe: Recipe, step: Any, rate: Any) -> Any:
    """The rate of one step: warmed up, then falling along a cosine over steps, or as ``rate`` says."""
    warm = jnp.minimum(1.0, (step + 1) / max(recipe.warmup_steps, 1))
    if recipe.schedule_steps is not None:
        passed = jnp.minimum(1.0, step / max(recipe.schedule_steps, recipe.warmup_steps + 1))
        rate = rate * (LEAST_RATE + (1 - LEAST_RATE) * 0.5 * (1 + jnp.cos(jnp.pi * passed)))
    return recipe.learning_rate * warm * rate


def shifted(x: jax.Array, key: jax.Array, pixels: int) -> jax.Array:
    """Each image ``[n, height, width, channels]`` moved by up to so many pixels; what comes in is zero."""
    _, height, width, _ = x.shape
    padded = jnp.pad(x, ((0, 0), (pixels, pixels), (pixels, pixels), (0, 0)))
    offsets = jax.random.randint(key, (len(x), 2), 0, 2 * pixels + 1)

    def cut(image: jax.Array, offset: jax.Array) -> jax.Array:
        start = (offset[0], offset[1], 0)
        return jax.lax.dynamic_slice(image, start, (height, width, image.shape[2]))

    return jax.vmap(cut)(padded, offsets)


def on_device(samples: Fragment) -> Data:
    """The samples on the default device; images stay uint8 there, a quarter of the memory."""
    return Data(jnp.asarray(samples.x), jnp.asarray(samples.y))


def start(architecture: Architecture, recipe: Recipe, seed: int, parameters: Parameters | None) -> State:
    """The state before the first step, from given parameters or fresh ones."""
    own = initialise(architecture, seed) if parameters is None else jax.tree.map(jnp.asarray, parameters)
    return State(own, jax.jit(optimiser(recipe).init)(own), jnp.int32(0))


def _real(x: jax.Array, compute: Any) -> jax.Array:
    if x.dtype == jnp.int32:
        return x
    return x.astype(compute) / 255 if x.dtype == jnp.uint8 else x.astype(compute)


def mean_loss(architecture: Architecture, outputs: jax.Array, y: jax.Array) -> jax.Array:
    """What training lowers: cross-entropy in nats per sample or token, or the mean squared error."""
    if architecture.output == "regression":
        return jnp.mean(jnp.square(outputs - y))
    return jnp.mean(cross_entropy(outputs, y))


@lru_cache(maxsize=16)
def compiled(architecture: Architecture, recipe: Recipe, mesh: Mesh | None = None) -> Dispatch:
    """The dispatch of one architecture and recipe.

    With a ``mesh``, whose one axis is ``data``, each device works on its share of every batch: state and
    samples are replicated over it, and the batch size is a multiple of its size. What is drawn does not
    depend on it.
    """
    network, transformation = build(architecture, training=True), optimiser(recipe)
    on_cpu = jax.default_backend() == "cpu"
    compute = jnp.float32 if on_cpu else jnp.bfloat16
    kernels = processor if on_cpu and mesh is None else None

    def loss_of(parameters: Parameters, x: jax.Array, y: jax.Array, key: jax.Array) -> tuple[jax.Array, Any]:
        narrow = jax.tree.map(lambda value: value.astype(compute), parameters)
        with own_kernels(kernels):
            outputs, seen = network.apply(
                {"params": narrow}, _real(x, compute), rngs={"dropout": key}, mutable=["statistics"]
            )
        return mean_loss(architecture, outputs.astype(jnp.float32), y), seen.get("statistics", {})

    gradient_of = _averaged(jax.value_and_grad(loss_of, has_aux=True), _parts(architecture, recipe, mesh))

    def one(state: State, data: Data, key: jax.Array, rate: Any) -> tuple[State, jax.Array]:
        own = jax.random.fold_in(key, state.step)
        drawn = jax.random.randint(own, (recipe.batch_size,), 0, len(data.y))
        # The draw of the batch is as it was before layers drew anything; theirs is a key apart.
        apart = jax.random.fold_in(own, 1)
        if mesh is not None:
            # All that follows from the indices is dealt out with them.
            drawn = jax.lax.with_sharding_constraint(drawn, NamedSharding(mesh, PartitionSpec("data")))
        x = data.x[drawn]
        if recipe.shift:
            x = shifted(x, jax.random.fold_in(own, 2), recipe.shift)
        (loss, seen), gradient = gradient_of(state.parameters, x, data.y[drawn], apart)
        updates, moments = transformation.update(gradient, state.optimiser, state.parameters)
        pace = learning_rate(recipe, state.step, rate)
        updated = jax.tree.map(lambda value, change: value - pace * change, state.parameters, updates)
        return State(with_statistics(updated, state.parameters, seen), moments, state.step + 1), loss

    def body(
        carry: tuple[State, jax.Array], data: Data, key: jax.Array, rate: Any
    ) -> tuple[State, jax.Array]:
        after, loss = one(carry[0], data, key, rate)
        return after, carry[1] + loss

    def loop(state: State, data: Data, key: jax.Array, steps: Any, rate: Any) -> tuple[State, jax.Array]:
        carry = (state, jnp.float32(0))
        after, total = jax.lax.fori_loop(0, steps, lambda _, carry: body(carry, data, key, rate), carry)
        return after, total / jnp.maximum(steps, 1)

    replicated = None if mesh is None else NamedSharding(mesh, PartitionSpec())
    if not _loops_slowly(architecture):
        return jax.jit(loop, donate_argnums=0, out_shardings=replicated)

    def with_raw_key(
        carry: tuple[State, jax.Array], data: Data, key: jax.Array, rate: Any
    ) -> tuple[State, jax.Array]:
        return body(carry, data, jax.random.wrap_key_data(key), rate)

    single = jax.jit(with_raw_key, donate_argnums=0, out_shardings=replicated)

    def queue(state: State, data: Data, key: jax.Array, steps: Any, rate: Any) -> tuple[State, jax.Array]:
        # A program that takes a typed key, or a number of the host, is called the long way, through Python.
        raw, pace = jax.random.key_data(key), jnp.float32(rate)
        carry = (state, jnp.float32(0))
        for _ in range(int(steps)):
            carry = single(carry, data, raw, pace)
        return carry[0], carry[1] / max(int(steps), 1)

    return queue


def _averaged(function: Callable[..., Any], parts: int) -> Callable[..., Any]:
    """``function(parameters, x, y, key)`` as its mean over so many equal parts of ``x`` and ``y``."""

    def average(parameters: Parameters, x: jax.Array, y: jax.Array, key: jax.Array) -> Any:
        dealt = zip(jnp.split(x, parts), jnp.split(y, parts), strict=True)
        results = [function(parameters, *part, key) for part in dealt]
        return jax.tree.map(lambda *values: sum(values) / parts, *results)

    return average


def _parts(architecture: Architecture, recipe: Recipe, mesh: Mesh | None = None) -> int:
    """In how many parts a batch is worked on, side by side: a transformer's step is many small operations,
    which XLA's CPU backend runs one after the other, and so leaves cores idle. Dropout and batch norm want a
    batch whole, that what is drawn and normalised does not depend on this; a mesh deals it out itself."""
    if jax.default_backend() != "cpu" or mesh is not None or recipe.batch_size % 2:
        return 1
    kinds = {layer.kind for layer in architecture.layers}
    return 2 if "causal_attention" in kinds and not kinds & {"dropout", "batch_norm"} else 1


def _loops_slowly(architecture: Architecture) -> bool:
    """Whether to queue single steps instead of looping on the device: the host then only queues, and never
    waits. XLA's CPU backend runs a convolution inside a loop more than ten times slower than outside."""
    return jax.default_backend() == "cpu" and any("conv" in layer.kind for layer in architecture.layers)


def split(
    samples: Fragment, holdout_share: float, seed: int, most: int | None = None
) -> tuple[Fragment, Fragment]:
    """``(training, holdout)``: a random share is held out, at least one sample, at most ``most``."""
    order = np.random.default_rng(seed).permutation(samples.count)
    held = min(max(1, round(samples.count * holdout_share)), samples.count - 1, most or samples.count)
    return samples.select(np.sort(order[held:])), samples.select(np.sort(order[:held]))
