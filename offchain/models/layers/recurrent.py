"""LSTM and GRU: layers that go through a sequence step by step.

A gate's argument is the part of the inputs at its position plus the part of the state. Between steps
everything is fixed point, since its size is known: gates lie in [0, 1], a cell grows by at most one per step.
Guarantees: every step is exact in int64 and, for the sums that ``plan`` proves, in float64 and float32; a
position depends on none after it.

Source: docs/exact-1.md, "Recurrence"; design section 7; the cells are those of Flax and PyTorch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen
from numpy.typing import NDArray

from offchain.evaluation import arithmetic, arithmetic_jax
from offchain.evaluation import functions as curves
from offchain.evaluation.arithmetic import Activations, spread
from offchain.evaluation.arithmetic_jax import Traced
from offchain.evaluation.bounds import FLOAT64_EXACT, Contraction, Way, plan_contraction
from offchain.evaluation.functions import ARGUMENT_BITS, ARGUMENT_FRACTION, CURVE_FRACTION
from offchain.evaluation.quantise import Linear, quantise_linear, quantise_vector
from offchain.models.layers.contraction import dot, scaled_sums
from offchain.models.layers.kind import LayerKind, Module
from protocol.architecture import MAX_POSITIONS, Gru, Lstm, Shape

STATE_FRACTION: Final = 14
"""Fraction of a layer's outputs, which lie in [-1, 1]."""
STATE_LIMIT: Final = 1 << STATE_FRACTION
GATE_FRACTION: Final = 15
PART_BITS: Final = 34
"""What inputs, state and bias each add to a gate's argument saturates at ``2**34``, which is 16384."""


class Recurrent(NamedTuple):
    """Integers of a recurrent layer."""

    kernel: Linear
    recurrent: Linear
    bias: Any
    """``[gates]``, ``|bias| < 2**24``."""
    bias_fraction: Any
    recurrent_bias: Any
    """``[features]``, or zeros where there is none."""
    recurrent_bias_fraction: Any


RecurrentPlan = tuple[Contraction, Contraction]


def _prepare(tensors: Mapping[str, NDArray[Any]]) -> Recurrent:
    own = tensors.get("recurrent_bias", np.zeros(1, np.float32))
    return Recurrent(
        quantise_linear(tensors["kernel"], None),
        quantise_linear(tensors["recurrent"], None),
        *quantise_vector(tensors["bias"], 24),
        *quantise_vector(own, 24),
    )


def _kept(gates: int, states: Shape) -> int:
    """Gates and states of all positions, and the gradients by which the kernels' are summed afterwards."""
    return 2 * (gates + math.prod(states))


def _plan(prepared: Recurrent, limit: int, way: Way) -> tuple[RecurrentPlan, int]:
    # A cell: one more per step, at 2**20, times a gate at 2**15, beside another product of the kind.
    assert (MAX_POSITIONS + 1) << (ARGUMENT_FRACTION + GATE_FRACTION + 1) < FLOAT64_EXACT
    # The largest argument times a reset gate.
    assert 1 << (PART_BITS + 1 + GATE_FRACTION) < FLOAT64_EXACT
    plans = (
        plan_contraction(prepared.kernel.weight, limit, way.weights),
        plan_contraction(prepared.recurrent.weight, STATE_LIMIT, way.weights),
    )
    return plans, STATE_LIMIT


def _part(values: NDArray[Any], fraction: Any) -> NDArray[Any]:
    return arithmetic.align_saturating(values, fraction, ARGUMENT_FRACTION, PART_BITS)


def _from_inputs(x: Activations, prepared: Recurrent) -> NDArray[Any]:
    """What inputs and bias add to the gates: ``[n, positions, gates]`` in ``2**-20``."""
    kernel = prepared.kernel
    products = (x.q @ kernel.weight.astype(np.int64)) * kernel.multiplier
    inputs = _part(products, spread(x.fraction + kernel.multiplier_fraction, products))
    return inputs + _part(prepared.bias, prepared.bias_fraction)


def _from_state(state: NDArray[Any], recurrent: Linear) -> NDArray[Any]:
    """What the state adds to the gates: ``[n, gates]`` in ``2**-20``."""
    products = (state @ recurrent.weight.astype(np.int64)) * recurrent.multiplier
    return _part(products, STATE_FRACTION + recurrent.multiplier_fraction)


def _saturated(argument: NDArray[Any]) -> NDArray[Any]:
    limit = 1 << ARGUMENT_BITS
    return np.clip(argument, -limit, limit)


_GATE_DROP: Final = np.int64(CURVE_FRACTION - GATE_FRACTION)


def _gate(argument: NDArray[Any]) -> NDArray[Any]:
    return arithmetic.round_shift(curves.symmetric_at(curves.SIGMOID, _saturated(argument)), _GATE_DROP)


def _tanh(argument: NDArray[Any]) -> NDArray[Any]:
    return arithmetic.round_shift(curves.odd_at(curves.TANH, _saturated(argument)), _GATE_DROP)


def _shift(values: Any, bits: int) -> Any:
    """Half up, in int64 or float64."""
    if values.dtype == np.int64:
        return (values + (1 << (bits - 1))) >> bits
    return jnp.floor(values * 2.0**-bits + 0.5)


def _next_cell(cell: Any, forget: Any, enter: Any, new: Any) -> Any:
    """``forget * cell + enter * new`` in ``2**-20``."""
    refine = 1 << (ARGUMENT_FRACTION - GATE_FRACTION)
    return _shift(forget * cell + enter * new * refine, GATE_FRACTION)


class _Parts(NamedTuple):
    """The traced side of the same, one position at a time; parts and gates in float64.

    For all positions at once the inputs' parts would be the largest array by far, and going through it twice
    took half of the time.
    """

    kernel: Linear
    recurrent: Linear
    plan: RecurrentPlan
    bias: jax.Array

    def from_inputs(self, x: Traced) -> jax.Array:
        """What inputs and bias of one position add to the gates: ``[n, gates]`` in ``2**-20``."""
        products = scaled_sums(dot, x.q, self.kernel, self.plan[0])
        fraction = spread(x.fraction + self.kernel.multiplier_fraction, products)
        return _part_traced(products, fraction) + self.bias

    def from_state(self, state: jax.Array) -> jax.Array:
        """What the state adds to the gates."""
        products = scaled_sums(dot, state.astype(jnp.float32), self.recurrent, self.plan[1])
        return _part_traced(products, STATE_FRACTION + self.recurrent.multiplier_fraction)


def _parts(prepared: Recurrent, plan: RecurrentPlan) -> _Parts:
    kernel, recurrent = map(_widened, (prepared.kernel, prepared.recurrent), plan)
    return _Parts(kernel, recurrent, plan, _vector_traced(prepared.bias, prepared.bias_fraction))


def _widened(linear: Linear, plan: Contraction) -> Linear:
    """Before the loop: XLA would widen them again in each step."""
    weight, multiplier = jnp.asarray(linear.weight), jnp.asarray(linear.multiplier)
    widened: dict[str, Any] = {
        "weight": weight.astype(plan.container),
        "multiplier": multiplier.astype(plan.wide),
    }
    return linear._replace(**widened)


def _part_traced(values: jax.Array, fraction: Any) -> jax.Array:
    return arithmetic_jax.align_saturating(values, fraction, ARGUMENT_FRACTION, PART_BITS)


def _vector_traced(values: Any, fraction: Any) -> jax.Array:
    return _part_traced(jnp.asarray(values).astype(jnp.float64), fraction)


def _saturated_traced(argument: jax.Array) -> jax.Array:
    limit = float(1 << ARGUMENT_BITS)
    return jnp.clip(argument, -limit, limit).astype(jnp.int32)


def _dropped(value: jax.Array) -> jax.Array:
    drop = CURVE_FRACTION - GATE_FRACTION
    return ((value + (1 << (drop - 1))) >> drop).astype(jnp.float64)


def _gate_traced(argument: jax.Array) -> jax.Array:
    return _dropped(curves.symmetric_at_traced(curves.SIGMOID, _saturated_traced(argument)))


def _tanh_traced(argument: jax.Array) -> jax.Array:
    return _dropped(curves.odd_at_traced(curves.TANH, _saturated_traced(argument)))


def _over_positions(step: Any, carry: Any, inputs: jax.Array) -> jax.Array:
    """``[n, positions, features]``: what ``step`` puts out for each position in turn."""
    _, outputs = jax.lax.scan(step, carry, inputs.swapaxes(0, 1))
    return outputs.swapaxes(0, 1)


def _states_after(step: Any, carry: Any, x: Traced, state_of: Any) -> Traced:
    """The states after each position, for a ``step`` from what is carried to what is carried next.

    A step puts out the state that it is handed, not the one that it makes: XLA would make that twice.
    """

    def lagging(carry: Any, position: Traced) -> Any:
        return step(carry, position), state_of(carry).astype(jnp.float32)

    positions = Traced(x.q.swapaxes(0, 1), x.fraction.swapaxes(0, 1))
    last, before = jax.lax.scan(lagging, carry, positions)
    states = jnp.concatenate([before[1:], state_of(last).astype(jnp.float32)[None]]).swapaxes(0, 1)
    return Traced(states, jnp.full(states.shape[:2], STATE_FRACTION, jnp.int32))


def _states(q: NDArray[Any]) -> Activations:
    return Activations(q, np.full(q.shape[:2], STATE_FRACTION, np.int64))


def _repeated(kernel: jax.Array, compute: Any) -> Callable[[jax.Array], jax.Array]:
    """``state @ kernel`` for one position after the other: a product in ``compute``, all else in float32.

    In bfloat16 a gate near one, or a state, would lose what is small beside it; so would the kernel's
    gradient, which adds up over the positions.
    """
    wide = kernel.astype(jnp.float32)
    return lambda state: (state.astype(compute) @ wide.astype(compute)).astype(jnp.float32)


class LstmModule(linen.Module):
    """The float LSTM, with one kernel for all gates."""

    features: int

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        gates = 4 * self.features
        kernel = self.param("kernel", linen.initializers.lecun_normal(), (x.shape[-1], gates))
        recurrent = self.param("recurrent", linen.initializers.orthogonal(), (self.features, gates))
        bias = self.param("bias", _forgetful_bias, (gates,))

        def step(carry: tuple[jax.Array, jax.Array], part: jax.Array) -> Any:
            state, cell = carry
            enter, forget, new, leave = jnp.split(part + of_state(state), 4, axis=-1)
            cell = linen.sigmoid(forget) * cell + linen.sigmoid(enter) * jnp.tanh(new)
            state = linen.sigmoid(leave) * jnp.tanh(cell)
            return (state, cell), state.astype(x.dtype)

        of_state = _repeated(recurrent, x.dtype)
        zeros = jnp.zeros((len(x), self.features), jnp.float32)
        return _over_positions(step, (zeros, zeros), x @ kernel + bias)


def _forgetful_bias(key: jax.Array, shape: Shape, dtype: Any = jnp.float32) -> jax.Array:
    """Zeros, but ones for the forget gate, so that an untrained cell remembers."""
    return jnp.zeros(shape, dtype).at[shape[0] // 4 : shape[0] // 2].set(1)


class LstmKind(LayerKind[Lstm]):
    """Long short-term memory."""

    schema = Lstm

    def kept(self, layer: Lstm, shape: Shape, output: Shape) -> int:
        return _kept(layer.scratch(shape), output)

    def prepare(self, layer: Lstm, tensors: Mapping[str, NDArray[Any]]) -> Recurrent:
        return _prepare(tensors)

    def plan(
        self, layer: Lstm, shape: Shape, limit: int, prepared: Recurrent, way: Way
    ) -> tuple[RecurrentPlan, int]:
        return _plan(prepared, limit, way)

    def module(self, layer: Lstm, name: str, training: bool) -> Module:
        return LstmModule(layer.features, name=name)

    def specification(self, layer: Lstm, prepared: Recurrent, *inputs: Activations) -> Activations:
        parts = _from_inputs(inputs[0], prepared)
        cell = state = np.zeros((len(parts), layer.features), np.int64)
        states = []
        for position in range(parts.shape[1]):
            arguments = parts[:, position] + _from_state(state, prepared.recurrent)
            enter, forget, new, leave = np.split(arguments, 4, axis=-1)
            cell = _next_cell(cell, _gate(forget), _gate(enter), _tanh(new))
            state = _shift(_gate(leave) * _tanh(cell), 2 * GATE_FRACTION - STATE_FRACTION)
            states.append(state)
        return _states(np.stack(states, axis=1))

    def exact(self, layer: Lstm, prepared: Recurrent, plan: RecurrentPlan, *inputs: Traced) -> Traced:
        parts = _parts(prepared, plan)

        def step(carry: tuple[jax.Array, jax.Array], position: Traced) -> Any:
            state, cell = carry
            arguments = parts.from_inputs(position) + parts.from_state(state)
            enter, forget, new, leave = jnp.split(arguments, 4, axis=-1)
            gates = _gate_traced(jnp.concatenate([enter, forget, leave], axis=-1))
            enter, forget, leave = jnp.split(gates, 3, axis=-1)
            cell = _next_cell(cell, forget, enter, _tanh_traced(new))
            state = _shift(leave * _tanh_traced(cell), 2 * GATE_FRACTION - STATE_FRACTION)
            return state, cell

        zeros = jnp.zeros((len(inputs[0].q), layer.features), jnp.float64)
        return _states_after(step, (zeros, zeros), inputs[0], lambda carry: carry[0])


class GruModule(linen.Module):
    """The float GRU, with one kernel for all gates."""

    features: int

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        gates = 3 * self.features
        kernel = self.param("kernel", linen.initializers.lecun_normal(), (x.shape[-1], gates))
        recurrent = self.param("recurrent", linen.initializers.orthogonal(), (self.features, gates))
        bias = self.param("bias", linen.initializers.zeros, (gates,))
        own = self.param("recurrent_bias", linen.initializers.zeros, (self.features,))

        def step(state: jax.Array, part: jax.Array) -> Any:
            reset, update, new = jnp.split(part, 3, axis=-1)
            from_reset, from_update, from_new = jnp.split(of_state(state), 3, axis=-1)
            keep = linen.sigmoid(update + from_update)
            new = jnp.tanh(new + linen.sigmoid(reset + from_reset) * (from_new + own))
            state = (1 - keep) * new + keep * state
            return state, state.astype(x.dtype)

        of_state = _repeated(recurrent, x.dtype)
        zeros = jnp.zeros((len(x), self.features), jnp.float32)
        return _over_positions(step, zeros, x @ kernel + bias)


_CELL_DROP: Final = ARGUMENT_FRACTION - STATE_FRACTION


class GruKind(LayerKind[Gru]):
    """Gated recurrent units; the state is kept in ``2**-20``, and read and put out in ``2**-14``."""

    schema = Gru

    def kept(self, layer: Gru, shape: Shape, output: Shape) -> int:
        return _kept(layer.scratch(shape), output)

    def prepare(self, layer: Gru, tensors: Mapping[str, NDArray[Any]]) -> Recurrent:
        return _prepare(tensors)

    def plan(
        self, layer: Gru, shape: Shape, limit: int, prepared: Recurrent, way: Way
    ) -> tuple[RecurrentPlan, int]:
        return _plan(prepared, limit, way)

    def module(self, layer: Gru, name: str, training: bool) -> Module:
        return GruModule(layer.features, name=name)

    def specification(self, layer: Gru, prepared: Recurrent, *inputs: Activations) -> Activations:
        parts = _from_inputs(inputs[0], prepared)
        own = _part(prepared.recurrent_bias, prepared.recurrent_bias_fraction)
        cell = np.zeros((len(parts), layer.features), np.int64)
        one, states = np.int64(1 << GATE_FRACTION), []
        for position in range(parts.shape[1]):
            reset, update, new = np.split(parts[:, position], 3, axis=-1)
            state = _shift(cell, _CELL_DROP)
            from_reset, from_update, from_new = np.split(_from_state(state, prepared.recurrent), 3, axis=-1)
            keep = _gate(update + from_update)
            gated = _shift(_gate(reset + from_reset) * (from_new + own), GATE_FRACTION)
            cell = _next_cell(cell, keep, one - keep, _tanh(new + gated))
            states.append(_shift(cell, _CELL_DROP))
        return _states(np.stack(states, axis=1))

    def exact(self, layer: Gru, prepared: Recurrent, plan: RecurrentPlan, *inputs: Traced) -> Traced:
        parts = _parts(prepared, plan)
        own = _vector_traced(prepared.recurrent_bias, prepared.recurrent_bias_fraction)
        one = 1 << GATE_FRACTION

        def step(cell: jax.Array, position: Traced) -> Any:
            reset, update, new = jnp.split(parts.from_inputs(position), 3, axis=-1)
            state = _shift(cell, _CELL_DROP)
            from_reset, from_update, from_new = jnp.split(parts.from_state(state), 3, axis=-1)
            both = jnp.concatenate([update + from_update, reset + from_reset], axis=-1)
            keep, admit = jnp.split(_gate_traced(both), 2, axis=-1)
            gated = _shift(admit * (from_new + own), GATE_FRACTION)
            return _next_cell(cell, keep, one - keep, _tanh_traced(new + gated))

        zeros = jnp.zeros((len(inputs[0].q), layer.features), jnp.float64)
        return _states_after(step, zeros, inputs[0], lambda cell: _shift(cell, _CELL_DROP))
