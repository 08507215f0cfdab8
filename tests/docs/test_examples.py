"""Every file in ``examples/`` is read by the reader that a user's copy would meet, and explains every key."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel

from aggregator.config import AggregatorConfig
from offchain.client import read_task_file
from offchain.client.task_file import load_samples
from offchain.config import ClientConfig, ProviderConfig, ValidatorConfig, VerifierConfig

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
CONFIGS: dict[str, type[BaseModel]] = {
    "provider": ProviderConfig,
    "validator": ValidatorConfig,
    "verifier": VerifierConfig,
    "client": ClientConfig,
    "aggregator": AggregatorConfig,
}


def test_every_example_is_tested_here() -> None:
    found = {path.name for path in EXAMPLES.iterdir()}
    assert found == {f"{name}.toml" for name in CONFIGS} | {"digits.yaml", "digits-cnn.yaml"}


@pytest.mark.parametrize("name", CONFIGS)
def test_an_example_configuration_is_read(name: str) -> None:
    config = CONFIGS[name].read(EXAMPLES / f"{name}.toml")  # type: ignore[attr-defined]
    assert config.key_file == EXAMPLES / f"{name}.key"


@pytest.mark.parametrize("name", CONFIGS)
def test_an_example_configuration_shows_every_key_and_tells_the_default(name: str) -> None:
    text = (EXAMPLES / f"{name}.toml").read_text(encoding="utf-8")
    shown = {line.lstrip("# ").partition(" = ")[0]: line for line in text.splitlines() if " = " in line}
    config = CONFIGS[name].read(EXAMPLES / f"{name}.toml")  # type: ignore[attr-defined]
    for key, field in CONFIGS[name].model_fields.items():
        assert key in shown, f"{key} is not shown"
        if shown[key].startswith("#") or "(set this)" in shown[key] or field.is_required():
            continue
        assert getattr(config, key) == field.default, f"{key} is not the default, nor marked"


@pytest.mark.parametrize("name", ["digits", "digits-cnn"])
def test_an_example_task_makes_a_model_that_fits_its_data(name: str) -> None:
    task = read_task_file(EXAMPLES / f"{name}.yaml")
    samples = load_samples(task.data)
    architecture = task.model.architecture(tuple(samples.x.shape[1:]), samples.classes)
    assert architecture.input_shape == (8, 8, 1)
    assert len(list(samples.fragments(task.test.of))) == task.test.of
