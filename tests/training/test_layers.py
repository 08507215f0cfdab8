"""Training with layers that differ in training: batch norm moves its statistics, dropout repeats itself."""

from __future__ import annotations

import jax
import numpy as np

from offchain.data import Fragment
from offchain.models.network import build, from_tensors, to_tensors
from offchain.training import step
from offchain.training.engine import TrainingConfig, TrainingTask, train
from protocol.architecture import Architecture, BatchNorm, Dense, Dropout, Relu

NORMED = Architecture(
    input_shape=(3,),
    layers=(BatchNorm(), Dense(features=8), Relu(), Dropout(rate_permille=300), Dense(features=2)),
)


def data(count: int = 400) -> Fragment:
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((count, 3)) * [1, 2, 3] + [5, 0, -5]).astype(np.float32)
    return Fragment(x, (x.sum(axis=1) > 0).astype(np.int32))


def test_running_statistics_reach_those_of_the_data_and_nothing_else_moves_them() -> None:
    recipe = step.Recipe(64, 1e-3, weight_decay=100.0, warmup_steps=0, schedule_steps=100, shift=0)
    samples = data()
    state = step.start(NORMED, recipe, 0, None)
    dispatch = step.compiled(NORMED, recipe)
    after, _ = dispatch(state, step.on_device(samples), jax.random.key(0), np.int32(200), np.float32(1))
    tensors = to_tensors(after.parameters)
    assert np.allclose(tensors["0.batch_norm.mean"], samples.x.mean(axis=0), atol=0.5)
    assert np.allclose(tensors["0.batch_norm.var"], samples.x.var(axis=0), rtol=0.3)
    # In scoring the network reads them, so that a sample alone is seen as it was in its batch.
    network = build(NORMED)
    whole = network.apply({"params": from_tensors(tensors)}, samples.x)
    alone = network.apply({"params": from_tensors(tensors)}, samples.x[:1])
    assert np.allclose(whole[:1], alone, atol=1e-5)


def test_a_run_with_dropout_and_batch_norm_repeats_itself_and_learns() -> None:
    config = TrainingConfig(max_steps=300, steps_per_dispatch=100, warmup_steps=10)
    results = [
        train(
            TrainingTask(NORMED, [data()], "cross_entropy"),
            config,
            checkpoint_dir=None,
            should_stop=lambda: False,
            on_improved=lambda _: None,
            on_progress=lambda _: None,
        )
        for _ in range(2)
    ]
    assert results[0].model == results[1].model is not None
    assert results[0].score is not None and results[0].score > -300_000
