"""Every file in ``examples/`` is read by the reader that a user's copy would meet, and explains every key."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel

from aggregator.config import AggregatorConfig
from offchain.client import Client, read_task_file
from offchain.config import ClientConfig, ProviderConfig, ValidatorConfig, VerifierConfig
from offchain.data import decode_fragment, form_of
from offchain.provider.pool import PoolSettings
from offchain.storage import EmbeddedStore
from offchain.storage.cid import Cid
from tests.chain import chainless_network

TASKS = {
    "digits": "classification",
    "digits-cnn": "classification",
    "tabular": "regression",
    "series": "regression",
    "characters": "next_token",
}
"""Task files, and what their models put out."""
TESTS = Path(__file__).resolve().parents[1]
EXAMPLES = TESTS.parent / "examples"
CONFIGS: dict[str, type[BaseModel]] = {
    "provider": ProviderConfig,
    "validator": ValidatorConfig,
    "verifier": VerifierConfig,
    "client": ClientConfig,
    "aggregator": AggregatorConfig,
}


def test_every_example_is_tested_here() -> None:
    found = {path.name for path in EXAMPLES.iterdir() if path.suffix != ".py" and path.is_file()}
    assert found == {f"{name}.toml" for name in [*CONFIGS, "pool"]} | {f"{name}.yaml" for name in TASKS}
    for program in EXAMPLES.glob("*.py"):
        driven = (path.read_text(encoding="utf-8") for path in (TESTS / "end_to_end").glob("test_*.py"))
        assert any(f'"{program.name}"' in text for text in driven), f"nothing runs {program.name}"


@pytest.mark.parametrize("name", CONFIGS)
def test_an_example_configuration_is_read(name: str) -> None:
    config = CONFIGS[name].read(EXAMPLES / f"{name}.toml")  # type: ignore[attr-defined]
    assert config.key_file == EXAMPLES / f"{name}.key"


@pytest.mark.parametrize("name", CONFIGS)
def test_an_example_configuration_shows_every_key_and_tells_the_default(name: str) -> None:
    config = CONFIGS[name].read(EXAMPLES / f"{name}.toml")  # type: ignore[attr-defined]
    shows_every_key(EXAMPLES / f"{name}.toml", config)


def test_the_example_of_a_pool_is_read_and_shows_every_key() -> None:
    shows_every_key(EXAMPLES / "pool.toml", PoolSettings.read(EXAMPLES / "pool.toml"))


def shows_every_key(path: Path, config: BaseModel) -> None:
    text = path.read_text(encoding="utf-8")
    shown = {line.lstrip("# ").partition(" = ")[0]: line for line in text.splitlines() if " = " in line}
    for key, field in type(config).model_fields.items():
        assert key in shown, f"{key} is not shown"
        if shown[key].startswith("#") or "(set this)" in shown[key] or field.is_required():
            continue
        assert getattr(config, key) == field.default, f"{key} is not the default, nor marked"


@pytest.mark.parametrize("name", TASKS)
def test_an_example_task_makes_a_document_that_fits_its_data(tmp_path: Path, name: str) -> None:
    task = read_task_file(EXAMPLES / f"{name}.yaml")
    client = Client(chainless_network("http://127.0.0.1:1"), None, tmp_path)
    document = client.prepare(task, gateway="http://127.0.0.1:1").document
    assert (document.metric, document.architecture.output) == (task.metric, TASKS[name])
    form = form_of(document.architecture, document.data.classes)
    store = EmbeddedStore(tmp_path / "store")
    fragment = document.data.fragments[0]
    assert decode_fragment(store.get(Cid.parse(fragment.cid)), form).count == fragment.samples
