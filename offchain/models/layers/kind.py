"""What a layer kind is: its schema, its Flax module, its exact definition, and that definition, fast.

One subclass per kind of ``protocol.architecture``, in the files beside this one; ``VOCABULARY`` lists
them. Training, exact scoring and (later) the grammar all read that one table, so a new layer is one
class in ``protocol/architecture.py`` and one class here, and cannot be half there.

Source: design section 7 (one list shared by the Flax modules, the exact evaluator and the grammar).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping
from typing import Any, ClassVar, Generic, TypeVar

import jax
from numpy.typing import NDArray
from pydantic import BaseModel

from offchain.evaluation.arithmetic import Activations
from offchain.evaluation.arithmetic_jax import Traced
from offchain.evaluation.bounds import Way
from protocol.architecture import Shape

L = TypeVar("L", bound=BaseModel)

Module = Callable[..., jax.Array]
"""Takes the previous output and those of ``references()``, ``[n, ...]`` float; returns ``[n, ...]``."""


class LayerKind(ABC, Generic[L]):
    """One row of the vocabulary. ``prepared`` is what ``prepare`` returned: integers, or None."""

    schema: ClassVar[type[BaseModel]]
    light: ClassVar[bool] = False
    """Whether ``exact`` only picks or moves integers: it is then compiled with the layer before it."""
    copies_kept: ClassVar[int] = 1
    """Copies of its output that training keeps; none if it is fused with what reads it, and made again."""
    compiles_itself: ClassVar[bool] = False
    """Whether ``exact`` calls compiled pieces of its own, and is not to be compiled as a whole."""

    def prepare(self, layer: L, tensors: Mapping[str, NDArray[Any]]) -> Any:
        """The layer's float32 tensors (by their short names) as integers; None if it has none."""
        return None

    def plan(self, layer: L, shape: Shape, limit: int, prepared: Any, way: Way) -> tuple[Hashable, int]:
        """The proof: how ``exact`` may compute, and the largest magnitude it then puts out.

        Args:
            shape: of the input. limit: largest magnitude of the input's integers. way: in which containers
                sums are wanted, where they are proved; changes how ``exact`` computes, and never what.

        Raises:
            UnprovenBound: no way of computing is proved exact.
        """
        return None, limit

    def kept(self, layer: L, shape: Shape, output: Shape) -> int:
        """Values per sample that training keeps for the layer's gradient, given its shapes."""
        return self.copies_kept * math.prod(output)

    @abstractmethod
    def module(self, layer: L, name: str, training: bool) -> Module:
        """The float layer, created inside a Flax module under ``name``.

        In training it may draw random numbers (``make_rng("dropout")``) and report what it has seen of the
        data (``sow("statistics", tensor, …)``, see ``offchain/models/network.py``).
        """

    @abstractmethod
    def specification(self, layer: L, prepared: Any, *inputs: Activations) -> Activations:
        """The definition, in NumPy int64."""

    @abstractmethod
    def exact(self, layer: L, prepared: Any, plan: Any, *inputs: Traced) -> Traced:
        """The definition, in traced JAX: equal to ``specification`` bit for bit."""
