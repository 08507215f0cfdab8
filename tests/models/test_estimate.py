"""What a model costs by the estimate, against what XLA states of the compiled training step on this CPU."""

from __future__ import annotations

from collections.abc import Iterator
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from offchain.data import Fragment
from offchain.models.estimate import estimate
from offchain.models.families import cnn, lstm, mlp, resnet, transformer
from offchain.training import step
from protocol.architecture import Architecture

LABELS = np.zeros(256, np.int32)
IMAGES = Fragment(np.zeros((256, 20, 20, 3), np.uint8), LABELS)
SERIES = Fragment(np.zeros((256, 32, 16), np.float32), LABELS)
TEXT = Fragment(np.zeros((64, 64), np.int32), np.zeros((64, 64), np.int32))
CASES = {
    "mlp": (mlp((20, 20, 3), 10, (512, 512)), IMAGES),
    "cnn": (cnn((20, 20, 3), 10, (32, 64), hidden=(128,)), IMAGES),
    "resnet": (resnet((20, 20, 3), 10, (16,)), IMAGES),
    "lstm": (lstm((32, 16), 10, 128), SERIES),
    "gru": (lstm((32, 16), 10, 128, cell="gru"), SERIES),
    "transformer": (transformer((64,), 64, 96, 2, 4, vocabulary=64), TEXT),
}
BATCH = 64
RECIPE = step.Recipe(BATCH, 3e-3, 0.0, warmup_steps=1, schedule_steps=None, shift=0)


@pytest.fixture(autouse=True)
def by_xla_alone() -> Iterator[None]:
    """Kernels of our own have memory that XLA does not know of; a loop is one program, and states all."""
    step.compiled.cache_clear()
    with (
        mock.patch.object(step, "processor", None),
        mock.patch.object(step, "_loops_slowly", lambda _: False),
    ):
        yield
    step.compiled.cache_clear()


def stated_bytes(architecture: Architecture, samples: Fragment) -> int:
    """What the compiled step takes, but for the samples that it draws from."""
    data = step.on_device(samples)
    state = jax.eval_shape(lambda: step.start(architecture, RECIPE, 1, None))
    dispatch = step.compiled(architecture, RECIPE)
    lowered = dispatch.lower(state, data, jax.random.key(0), jnp.int32(1), jnp.float32(1))  # type: ignore[attr-defined]
    stated = lowered.compile().memory_analysis()
    return stated.argument_size_in_bytes + stated.temp_size_in_bytes - sum(each.nbytes for each in data)


@pytest.mark.parametrize("family", CASES)
def test_it_is_near_what_the_compiled_step_states(family: str) -> None:
    architecture, samples = CASES[family]
    assert 0.5 < estimate(architecture, BATCH).training_bytes / stated_bytes(architecture, samples) < 2


def test_what_a_batch_takes_follows_from_its_size_and_that_of_a_value() -> None:
    for architecture, _ in CASES.values():
        whole, half, narrow = (
            estimate(architecture, *of).training_bytes for of in ((BATCH, 4), (BATCH // 2, 4), (BATCH, 2))
        )
        assert half == narrow < whole
        assert 2 * half - whole == 16 * estimate(architecture).parameters, "of which no batch takes more"
