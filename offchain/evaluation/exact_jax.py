"""``exact-1`` in JAX: compiled per kind and shape of layer, streamed in batches, equal to the specification.

Batches are computed side by side, one per processor core: a layer is a dozen short passes over memory, and
cores that share each of them wait for one another a dozen times. Guarantees: bit equality with
``specification.run`` for every batch size, since nothing in the definition looks at a second sample; memory
bounded by the budget in ``Means`` whatever the model and the number of samples (``memory.py``); parameters
are arguments of the compiled program, so scoring a model again and again while it trains compiles once.

Source: design section 7; docs/exact-1.md.
"""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache, partial
from typing import Any, Final, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from offchain.evaluation.arithmetic import ACTIVATION_LIMIT, FINEST, Activations, groups_of, spread
from offchain.evaluation.arithmetic_jax import Traced, x64
from offchain.evaluation.bounds import USUAL, Way
from offchain.evaluation.containers import Choice, fastest, ways
from offchain.evaluation.means import USUAL_MEANS, Means
from offchain.evaluation.memory import LEAST_AT_WORK, batches_within, samples_within
from offchain.evaluation.place import device, on_cpu
from offchain.evaluation.quantise import IMAGE_FRACTION, IMAGE_LIMIT, largest_pattern, quantise_inputs
from offchain.models.layers import VOCABULARY
from protocol.architecture import Architecture, Layer, Shape, recurrent_steps, scratch, shapes

BATCH_VALUES: Final = 1 << 22
"""Scalars of the largest array in one batch: beyond that a larger batch gains nothing."""
CACHED_VALUES: Final = 1 << 18
"""The same on a CPU, where what does not fit its caches costs several times as much; a recurrent layer
touches a step at a time, and wants large batches."""
MAX_BATCH: Final = 2048
_MOST_AT_WORK: Final = 8
"""Batches at once: more would contend for memory."""

_SAFE_FRACTION: Final = 100
"""Up to here a denormal float32, below 2**-126, rounds to zero, whether or not it is flushed before."""
_IMAGE_VALUES: Final = quantise_inputs(np.arange(256, dtype=np.uint8)).q.astype(np.float32)

Plans = tuple[Hashable, ...]


def batch_size_for(architecture: Architecture, samples: int, means: Means = USUAL_MEANS) -> int:
    """Samples per batch: a power of two, what the memory budget and caches ask for, no larger than needed.

    Raises:
        OverBudget: not even one sample fits the budget.
    """
    within = samples_within(architecture, means.memory_bytes, ways(means.container, samples))
    cached = on_cpu() and not recurrent_steps(architecture)
    values = CACHED_VALUES if cached else BATCH_VALUES
    fitting = min(MAX_BATCH, max(1, values // scratch(architecture)), within)
    return 1 << (min(fitting, 1 << (samples - 1).bit_length()).bit_length() - 1)


def batches_at_once(architecture: Architecture, size: int, samples: int, means: Means = USUAL_MEANS) -> int:
    """How many batches of ``size`` to compute at a time: as cores and the memory budget allow.

    Two where there is one device to serve, so that it need not wait for the host.
    """
    cores = _cores() if on_cpu() else LEAST_AT_WORK
    within = batches_within(architecture, size, means.memory_bytes, ways(means.container, samples))
    return max(LEAST_AT_WORK, min(cores, within, _MOST_AT_WORK))


def _cores() -> int:
    """How many this process may use; systems that do not tell say how many there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def plan(prepared: tuple[Any, ...], architecture: Architecture, images: bool, way: Way = USUAL) -> Plans:
    """The proof for every layer, see ``bounds.py``, in the containers of ``way`` where it holds for them.

    Raises:
        UnprovenBound: for some layer nothing is proved exact.
    """
    limit = IMAGE_LIMIT if images else ACTIVATION_LIMIT
    named: dict[str, int] = {}
    plans: list[Hashable] = []
    shape = architecture.input_shape
    for layer, integers, output in zip(
        architecture.computed_layers, prepared, shapes(architecture), strict=False
    ):
        incoming = max([limit, *(named[name] for name in layer.references())])
        layer_plan, limit = VOCABULARY[layer.kind].plan(layer, shape, incoming, integers, way)
        plans.append(layer_plan)
        shape = output
        if layer.name is not None:
            named[layer.name] = limit
    return tuple(plans)


class _Stage(NamedTuple):
    """Layers compiled together: one, and those after it that only pass its integers on."""

    start: int
    stop: int
    layers: tuple[Layer, ...]
    """Without names."""
    references: tuple[str, ...]
    """What the first of them takes in besides the previous output."""
    name: str | None


@lru_cache(maxsize=64)
def stages_of(architecture: Architecture) -> tuple[_Stage, ...]:
    """The stages in which an architecture is compiled, in order."""
    layers, stages, start = architecture.computed_layers, list[_Stage](), 0
    while start < len(layers):
        stop = start + 1
        while stop < len(layers) and layers[stop - 1].name is None and VOCABULARY[layers[stop].kind].light:
            stop += 1
        own = tuple(layer.model_copy(update=_NAMELESS[layer.kind == "add"]) for layer in layers[start:stop])
        stages.append(_Stage(start, stop, own, layers[start].references(), layers[stop - 1].name))
        start = stop
    return tuple(stages)


class Program:
    """The program of one architecture under one proof.

    Compiled stage by stage: in one piece XLA fuses what reads an intermediate with what makes it, and makes
    it again for every reader (13 times slower for attention); and equal layers compile once.
    """

    def __init__(self, architecture: Architecture, plans: Plans) -> None:
        self._stages = [
            (stage, compiled_stage(stage.layers, plans[stage.start : stage.stop]))
            for stage in stages_of(architecture)
        ]
        self.ready_for: set[tuple[jax.Device | None, int]] = set()
        """Devices, and sizes of batches that were computed there: nothing is left to compile for them."""

    def __call__(self, prepared: tuple[Any, ...], value: Traced) -> Traced:
        named: dict[str, Traced] = {}
        for stage, run in self._stages:
            others = [named[name] for name in stage.references]
            value = run(prepared[stage.start : stage.stop], value, *others)
            if stage.name is not None:
                named[stage.name] = value
        return value


@lru_cache(maxsize=64)
def compiled(architecture: Architecture, plans: Plans) -> Program:
    """The program, made once."""
    return Program(architecture, plans)


def chosen(
    prepared: tuple[Any, ...], architecture: Architecture, images: bool, size: int, ways: Sequence[Way]
) -> Plans:
    """The proof by which to compute: stage by stage the fastest of those that the ways lead to.

    Args:
        size: samples per batch. ways: from ``containers.ways``; the first is kept unless another is faster.

    Raises:
        UnprovenBound: for some layer nothing is proved exact.
    """
    proofs = tuple(dict.fromkeys(plan(prepared, architecture, images, way) for way in ways))
    if len(proofs) == 1:
        return proofs[0]
    inputs = (architecture.input_shape, *shapes(architecture))
    found: list[Hashable] = []
    for stage in stages_of(architecture):
        choices = tuple(dict.fromkeys(proof[stage.start : stage.stop] for proof in proofs))
        shape, own = inputs[stage.start], prepared[stage.start : stage.stop]
        key = (jax.devices()[0].device_kind, stage.layers, choices, shape, size)
        found += choices[0 if len(choices) == 1 else fastest(key, _runs(stage, choices, own, shape, size))]
    return tuple(found)


def _runs(stage: _Stage, choices: Sequence[Plans], prepared: Any, shape: Shape, size: int) -> list[Any]:
    """One run of the stage for each of its choices, on zeros: no step of it takes longer for other values."""
    place = device()
    with x64(), jax.default_device(place):
        zeros = jnp.zeros((size, *shape), jnp.float32)
        value = Traced(zeros, jnp.zeros(groups_of(zeros.shape), jnp.int32))
        parameters = jax.device_put(narrowed(prepared))

    def run(plans: Plans) -> object:
        with x64(), jax.default_device(place):
            others = [value for _ in stage.references]
            return jax.block_until_ready(compiled_stage(stage.layers, plans)(parameters, value, *others))

    return [partial(run, plans) for plans in choices]


_NAMELESS: Final[dict[bool, dict[str, Any]]] = {False: {"name": None}, True: {"name": None, "other": "other"}}
"""Names say nothing about how to compute; without them equal layers are equal."""


@lru_cache(maxsize=512)
def compiled_stage(layers: tuple[Layer, ...], plans: Plans) -> Callable[..., Traced]:
    """Layers without names, under one proof, compiled together."""

    def stage(prepared: tuple[Any, ...], value: Traced, *others: Traced) -> Traced:
        for layer, integers, layer_plan in zip(layers, prepared, plans, strict=True):
            value = VOCABULARY[layer.kind].exact(layer, integers, layer_plan, value, *others)
            others = ()
        return value

    # The name by which a profile knows it.
    stage.__name__ = "_".join(layer.kind for layer in layers)
    return stage if VOCABULARY[layers[0].kind].compiles_itself else jax.jit(stage)


def inputs_in_batches(pieces: Iterable[NDArray[Any]], batch_size: int) -> Iterator[tuple[int, Traced]]:
    """Samples as integers in host memory, batch by batch; each is filled up to size with its first sample."""
    for piece in pieces:
        count = len(piece)
        if count < batch_size:
            piece = np.concatenate([piece, np.repeat(piece[:1], batch_size - count, axis=0)])
        yield count, quantise_fast(piece)


def cut(x: NDArray[Any], size: int) -> Iterator[NDArray[Any]]:
    """Views of ``x``, ``size`` samples at a time."""
    return (x[start : start + size] for start in range(0, len(x), size))


def quantise_fast(x: NDArray[Any]) -> Traced:
    """``quantise_inputs`` in float32 and int32, through float64 where that is exact; in host memory.

    A float32 has 24 bits: times a power of two, plus one half, it fits float64's 53 wherever the sum
    decides a rounding. Samples so small that denormals could count take the definition's way.
    """
    groups = groups_of(x.shape)
    if x.dtype == np.uint8:
        return _on_host(_IMAGE_VALUES[x], np.full(groups, IMAGE_FRACTION))
    if x.dtype == np.int32:
        return _on_host(x, np.zeros(groups))
    bits = largest_pattern(x.reshape(*groups, -1), axis=-1)
    # A normal float32 is 1 to 2 times 2**(field - 127); its 24 bits, rounded to 15, may pass the limit.
    leading = (bits & ((1 << 23) - 1)) | (1 << 23)
    fraction = 141 - (bits >> 23) - (((leading + 256) >> 9) > ACTIVATION_LIMIT)
    zero = bits == 0
    if fraction[~zero].max(initial=0) > _SAFE_FRACTION:
        return _on_host(*quantise_inputs(x))
    scaled = x * spread(np.ldexp(1.0, np.where(zero, 0, fraction)), x)
    scaled += 0.5
    return _on_host(np.floor(scaled, out=scaled), np.where(zero, FINEST, fraction))


def _on_host(q: NDArray[Any], fraction: NDArray[Any]) -> Traced:
    """In the types that the device takes; a compiled program moves its arguments by itself."""
    return Traced(q.astype(np.float32, copy=False), fraction.astype(np.int32, copy=False))  # type: ignore


def narrowed(prepared: tuple[Any, ...]) -> tuple[Any, ...]:
    """The integers in types that hold them, in host memory."""
    return jax.tree.map(
        lambda values: np.asarray(values, values.dtype if values.dtype in (np.int8, np.int16) else np.int32),
        prepared,
    )


def run(
    prepared: tuple[Any, ...],
    architecture: Architecture,
    x: NDArray[Any],
    batch_size: int | None = None,
    means: Means = USUAL_MEANS,
) -> Activations:
    """Outputs of the model, the same integers as ``specification.run``.

    Args:
        prepared: from ``specification.prepare``. x: ``[n, *input_shape]`` uint8, int32 or finite float32.

    Raises:
        UnprovenBound: for some layer nothing is proved exact.
        OverBudget: not even one sample fits the memory budget.
    """
    size = batch_size_for(architecture, len(x), means) if batch_size is None else batch_size
    plans = plans_for(prepared, architecture, x.dtype == np.uint8, size, len(x), means.container)
    at_once = batches_at_once(architecture, size, len(x), means)
    pieces = stream(prepared, architecture, inputs_in_batches(cut(x, size), size), plans, at_once)
    q, fraction = (np.concatenate(part) for part in zip(*pieces, strict=True))
    return Activations(q.astype(np.int64), fraction.astype(np.int64))


def plans_for(
    prepared: tuple[Any, ...],
    architecture: Architecture,
    images: bool,
    size: int,
    samples: int,
    container: Choice = "auto",
) -> Plans:
    """The proof by which to score that many samples in batches of ``size``.

    Raises:
        UnprovenBound: for some layer nothing is proved exact.
    """
    return chosen(prepared, architecture, images, size, ways(container, -(-samples // size)))


def stream(
    prepared: tuple[Any, ...],
    architecture: Architecture,
    batches: Iterable[tuple[int, Traced]],
    plans: Plans,
    at_once: int = LEAST_AT_WORK,
) -> Iterator[Activations]:
    """``run`` on batches that ``inputs_in_batches`` made, under the proof for them: outputs batch by batch.

    Outputs are int16 and int32, and nothing else is kept of a batch. At most ``at_once`` batches exist,
    and two where that is one.
    """
    program, parameters, place = compiled(architecture, plans), narrowed(prepared), device()

    def compute(count: int, batch: Traced) -> Activations:
        # Types and device are a thread's own: the caller, who runs in between, keeps its own, and jobs of
        # other threads compute elsewhere.
        with x64(), jax.default_device(place):
            value = program(parameters, batch)
        program.ready_for.add((place, len(batch.q)))
        return Activations(np.asarray(value.q)[:count].astype(np.int16), np.asarray(value.fraction)[:count])

    batches = iter(batches)
    ahead = list(itertools.islice(batches, 2))
    if len(ahead) < 2:
        # A call moves the parameters by itself, once; that is quicker, if it is the only call.
        yield from (compute(*only) for only in ahead)
        return
    batches = itertools.chain(ahead, batches)
    del ahead  # which would keep two batches to the end
    with x64(), jax.default_device(place):
        parameters = jax.device_put(parameters)
    pending: deque[Future[Activations]] = deque()
    with ThreadPoolExecutor(at_once, "exact") as workers:
        try:
            for count, batch in batches:
                if (place, len(batch.q)) not in program.ready_for:
                    # Alone: two would compile the same twice.
                    yield compute(count, batch)
                    continue
                pending.append(workers.submit(compute, count, batch))
                if len(pending) == at_once:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            # Where the caller stops early, or a batch fails, no other is begun.
            workers.shutdown(wait=False, cancel_futures=True)
