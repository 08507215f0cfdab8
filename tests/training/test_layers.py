"""Training with layers that differ in training: batch norm moves its statistics, dropout repeats itself."""

from __future__ import annotations

from unittest import mock

import jax
import numpy as np

from offchain.data import Fragment
from offchain.models.families import transformer
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


def test_a_batch_in_two_parts_trains_as_a_whole_one_does() -> None:
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 20, (30, 9), np.int32)
    samples = step.on_device(Fragment(tokens, np.roll(tokens, -1, axis=1)))
    # A rate at which roundings do not decide: where a gradient is next to nothing, Adam's step has its sign.
    recipe = step.Recipe(8, 1e-4, 0.0, warmup_steps=0, schedule_steps=100, shift=0)
    text = transformer((9,), 20, 16, 1, 2, vocabulary=20)
    assert step._parts(text, recipe) == 2

    def trained() -> tuple[dict[str, np.ndarray], float]:
        step.compiled.cache_clear()
        dispatch = step.compiled(text, recipe)
        state = step.start(text, recipe, 0, None)
        after, loss = dispatch(state, samples, jax.random.key(0), np.int32(20), np.float32(1))
        return to_tensors(after.parameters), float(loss)

    parted, loss = trained()
    with mock.patch.object(step, "_parts", lambda *_: 1):
        whole, other_loss = trained()
    step.compiled.cache_clear()
    assert abs(loss - other_loss) < 1e-5 * loss
    for name, tensor in whole.items():
        assert np.abs(parted[name] - tensor).max() < 1e-4, name


def test_batches_stay_whole_where_parts_would_change_what_is_trained_or_gain_nothing() -> None:
    recipe = step.Recipe(8, 1e-3, 0.0, warmup_steps=0, schedule_steps=100, shift=0)
    text = transformer((9,), 20, 16, 1, 2, vocabulary=20)
    assert step._parts(text, recipe._replace(batch_size=7)) == 1
    assert step._parts(transformer((9,), 20, 16, 1, 2, vocabulary=20, dropout_permille=100), recipe) == 1
    assert step._parts(NORMED, recipe) == 1
    with mock.patch.object(jax, "default_backend", lambda: "gpu"):
        assert step._parts(text, recipe) == 1
