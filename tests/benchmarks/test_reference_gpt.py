"""The reference case is the published one, and a chip's peak is found by the name that JAX gives it."""

from __future__ import annotations

import pytest

from benchmarks import reference_gpt
from benchmarks.reference_gpt import CONTEXT, GPT, measure, peak_tflops
from offchain.models.estimate import estimate
from offchain.models.families import transformer


def test_it_has_the_parameters_of_its_sizes() -> None:
    wide, depth, characters = 384, 6, 65
    block = (
        4 * wide + (wide + 1) * 3 * wide + (wide + 1) * wide + (wide + 1) * 4 * wide + (4 * wide + 1) * wide
    )
    whole = (characters + CONTEXT) * wide + depth * block + 2 * wide + (wide + 1) * characters
    assert estimate(GPT).parameters == whole == 10_795_841


@pytest.mark.parametrize(
    ("kind", "peak"),
    [
        ("NVIDIA H200", 989.0),
        ("NVIDIA H100 PCIe", 756.0),
        ("NVIDIA H100 80GB HBM3", 989.0),
        ("NVIDIA L40S", 362.0),
        ("NVIDIA L40", 181.0),
        ("NVIDIA L4", 121.0),
        ("TPU v5 lite", 197.0),
        ("cpu", None),
    ],
)
def test_a_peak_is_found_by_the_chips_name(kind: str, peak: float | None) -> None:
    assert peak_tflops(kind) == peak


def test_utilisation_is_what_the_steps_need_over_what_the_chip_could_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    small = transformer((8,), 65, 16, 1, 2, vocabulary=65)
    monkeypatch.setattr(reference_gpt, "GPT", small)
    monkeypatch.setattr(reference_gpt, "CONTEXT", 8)
    # PyTorch's model has sizes of its own.
    monkeypatch.setattr(reference_gpt.importlib.util, "find_spec", lambda name: None)
    result = measure(4, 0.1, 1e-3)["ours"]
    assert result["tokens_per_s"] == pytest.approx(result["steps_per_s"] * 4 * 8, abs=1)
    flops = estimate(small).training_flops_per_sample * 4 * result["steps_per_s"]
    assert result["mfu"] == pytest.approx(flops / 1e9, abs=1e-3)
