"""Metrics are integers with a definition for every case: ties, empty classes, nothing to rank, no end."""

from __future__ import annotations

from fractions import Fraction as Exact

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from offchain.evaluation.arithmetic import Activations
from offchain.evaluation.metrics import score, tally
from protocol.metric import metrics_for, perfect_score, reads


def outputs(rows: object, fraction: int | list[int] = 0) -> Activations:
    q = np.array(rows)
    return Activations(q, np.broadcast_to(np.array(fraction), q.shape[:1]).copy())


def metric_of(rows: object, labels: object, metric: str, fraction: int | list[int] = 0) -> int:
    kind = np.float32 if metric in ("mse", "mae") else np.int32
    return score(outputs(rows, fraction), np.array(labels, kind), metric)


def test_ties_go_to_the_lowest_class_and_shares_round_half_up() -> None:
    assert metric_of([[3, 3, 1]], [0], "accuracy") == 1_000_000
    assert metric_of([[3, 3, 1]], [1], "accuracy") == 0
    assert metric_of([[1, 0]] * 3, [0, 0, 1], "accuracy") == 666_667
    assert metric_of([[1, 0]] * 3, [0, 1, 1], "accuracy") == 333_333


def test_the_top_two_are_the_two_first_of_the_largest() -> None:
    row = [5, 7, 5, 5]
    assert [metric_of([row], [label], "top_2") for label in range(4)] == [1_000_000, 1_000_000, 0, 0]
    assert metric_of([row], [3], "top_5") == 1_000_000


def test_losses_are_negated_nats() -> None:
    assert metric_of([[0, 0]], [1], "cross_entropy") == pytest.approx(-693_147, abs=20)
    assert metric_of([[0, 0, 0, 0]], [2], "cross_entropy") == pytest.approx(-1_386_294, abs=20)
    assert metric_of([[20, 0]], [0], "cross_entropy") == 0
    assert metric_of([[20, 0]], [1], "cross_entropy") == -20_000_000
    assert metric_of([[30000, 0]], [1], "cross_entropy", fraction=-60) == -16384 * 1_000_000


def test_a_sequence_is_scored_by_position() -> None:
    q = np.array([[[9, 0], [0, 9]], [[9, 0], [9, 0]]])
    whole = Activations(q, np.array([[0, 0], [0, 20]]))
    labels = np.array([[0, 1], [1, 0]], np.int32)
    flat = score(Activations(q.reshape(4, 2), np.array([0, 0, 0, 20])), labels.reshape(4), "cross_entropy")
    assert score(whole, labels, "accuracy") == 750_000
    assert score(whole, labels, "cross_entropy") == flat


def test_errors_are_those_of_the_rationals_and_saturate() -> None:
    assert metric_of([[3, -1]], [[1.5, -1.5]], "mse", 1) == -500_000
    assert metric_of([[3, -1]], [[1.5, -1.5]], "mae", 1) == -500_000
    assert metric_of([[1]], [[0.75]], "mse") == -62_500
    assert metric_of([[0]], [[0.0]], "mse") == 0
    assert metric_of([[0]], [[3e38]], "mae") == -(2**20) * 1_000_000
    assert metric_of([[32639]], [[-3e38]], "mse", -200) == -(2**40) * 1_000_000
    assert metric_of([[1]], [[1e-45]], "mae", 300) == 0


UNSURE = 2.0**-28
"""Powers are rounded at ``2**-30``, twice, and their sum is at least one."""


@settings(max_examples=60)
@given(st.integers(2, 5), st.integers(1, 30), st.integers(0, 2**32))
@example(4, 21, 21)  # two chances of some 1e-8: one pair of few, which other digits join
def test_f1_kappa_and_auc_are_those_of_the_reference(classes: int, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    q, fraction = rng.integers(-9, 10, (count, classes)), rng.integers(0, 3, count)
    labels = rng.integers(0, classes, count).astype(np.int32)
    predicted = q.argmax(axis=-1)
    given_outputs = Activations(q, fraction)
    f1 = reference.f1_score(labels, predicted, average="macro")
    assert score(given_outputs, labels, "macro_f1") == pytest.approx(f1 * 1e6, abs=1)
    if len({*labels, *predicted}) > 1:
        kappa = reference.cohen_kappa_score(labels, predicted)
        assert score(given_outputs, labels, "kappa") == pytest.approx(kappa * 1e6, abs=1)
    values = q * 2.0 ** -fraction[:, None]
    if classes == 2 and len(set(labels)) == 2:
        area = reference.roc_auc_score(labels, values[:, 1] - values[:, 0])
        assert score(given_outputs, labels, "auc") == pytest.approx(area * 1e6, abs=1)
    if classes > 2 and len(set(labels)) == classes:
        odds = np.exp(values - values.max(axis=-1, keepdims=True))
        # Twelve digits join what rounding in float64 has parted.
        chances = np.round(odds / odds.sum(axis=-1, keepdims=True), 12)
        least, most = area_bounds(labels, chances)
        area = reference.roc_auc_score(labels, chances, multi_class="ovr")
        assert least - 1e-9 <= area <= most + 1e-9
        assert least * 1e6 - 1 <= score(given_outputs, labels, "auc") <= most * 1e6 + 1


def area_bounds(labels: np.ndarray, chances: np.ndarray) -> tuple[float, float]:
    """Of the mean area over the classes: pairs of chances that differ, but that 30 bits may not tell apart,
    count as either."""
    least, most = [], []
    for index, column in enumerate(chances.T):
        ahead = column[labels == index][:, None] - column[labels != index][None, :]
        ties = (ahead == 0).mean() / 2
        least.append((ahead > UNSURE).mean() + ties)
        most.append(((ahead >= -UNSURE) & (ahead != 0)).mean() + ties)
    return float(np.mean(least)), float(np.mean(most))


def test_what_cannot_be_ranked_or_agreed_on_has_a_score_all_the_same() -> None:
    assert metric_of([[1, 0]] * 3, [0, 0, 0], "auc") == 500_000
    assert metric_of([[1, 0, 0]] * 3, [2, 2, 2], "auc") == 500_000
    assert metric_of([[1, 0]] * 4, [0, 1, 0, 1], "auc") == 500_000
    assert metric_of([[1, 0]] * 3, [0, 0, 0], "kappa") == 0
    assert metric_of([[1, 0]] * 3, [1, 1, 1], "macro_f1") == 0
    # Class 2 occurs nowhere: it neither helps nor harms.
    assert metric_of([[1, 0, 0], [0, 1, 0]], [0, 1], "macro_f1") == 1_000_000


@given(st.lists(st.tuples(st.integers(-32639, 32639), st.integers(-200, 200)), min_size=2, max_size=8))
def test_a_binary_area_ranks_by_the_exact_values_whatever_their_fractions(
    pairs: list[tuple[int, int]],
) -> None:
    labels = [index % 2 for index in range(len(pairs))]
    values = [q * Exact(2) ** -fraction for q, fraction in pairs]
    up = [value for value, label in zip(values, labels, strict=True) if label]
    down = [value for value, label in zip(values, labels, strict=True) if not label]
    wins = sum(2 * (a > b) + (a == b) for a in up for b in down)
    expected = (2 * wins * 1_000_000 + 2 * len(up) * len(down)) // (4 * len(up) * len(down))
    found = metric_of([[0, q] for q, _ in pairs], labels, "auc", [fraction for _, fraction in pairs])
    assert found == expected


@pytest.mark.parametrize("metric", metrics_for("classification"))
def test_batches_change_nothing_and_perfection_is_the_most(metric: str) -> None:
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 4, 50).astype(np.int32)
    given_outputs = Activations(rng.integers(-99, 99, (50, 4)), rng.integers(0, 5, 50))
    kept = tally(metric)
    for part in np.array_split(np.arange(50), 7):
        kept.add(Activations(given_outputs.q[part], given_outputs.fraction[part]), labels[part])
    assert kept.score() == score(given_outputs, labels, metric)
    best = Activations(np.eye(4, dtype=np.int64)[labels] * 30000, np.zeros(50, np.int64))
    assert score(best, labels, metric) == perfect_score(metric)


def test_each_metric_reads_some_outputs_and_no_others() -> None:
    assert reads("top_7", "next_token") and not reads("top_7", "regression")
    assert reads("mse", "regression") and not reads("mse", "classification")
    assert not reads("vibes", "classification")
