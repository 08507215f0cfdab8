"""New data meets a model as the training data did, and what comes out is in the words of that data."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from dtn.app import app
from offchain.client import read_task_file
from offchain.client.task_file import load_data
from offchain.datasets.files import read_arrays, read_images, read_text
from offchain.datasets.prepared import write_prepared
from offchain.datasets.samples import InvalidData, Samples
from offchain.datasets.table import read_series, read_table
from offchain.evaluation import specification
from offchain.models.artifact import encode_model
from offchain.prediction import predict, read_unseen
from protocol.architecture import Architecture, parameter_shapes
from tests.datasets.test_readers import idx

RNG = np.random.default_rng(7)
TABLE = "age,height,kind\n" + "\n".join(f"{n},{n * 0.5 + n % 3},{'ab'[n % 2]}" for n in range(12)) + "\n"


def written(path: Path, data: str | bytes) -> Path:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def parameters(architecture: Architecture) -> dict[str, Any]:
    """A model nobody trained."""
    return {
        name: RNG.normal(0, 0.3, shape).astype(np.float32)
        for name, shape in parameter_shapes(architecture).items()
    }


@pytest.fixture
def sources(tmp_path: Path) -> dict[str, tuple[Path, Samples]]:
    """A file of each kind, and the samples that training makes of it."""
    table = written(tmp_path / "t.csv", TABLE)
    numbers = written(tmp_path / "n.csv", "a,b,c\n" + "".join(f"{n},{n % 5},{n * n}\n" for n in range(30)))
    text = written(tmp_path / "t.txt", "the quick brown fox jumps over the lazy dog " * 9)
    images = written(tmp_path / "i.gz", gzip.compress(idx(8, (12, 4, 4), bytes(range(192)))))
    labels = written(tmp_path / "l", idx(8, (12,), bytes(n % 3 for n in range(12))))
    arrays = tmp_path / "a.npz"
    np.savez(arrays, x=RNG.normal(size=(12, 3)), y=np.arange(12) % 4)
    return {
        "table": (table, read_table(table, None)),
        "table as it is": (table, read_table(table, None, standardise=False)),
        "regression": (numbers, read_table(numbers, "c", regression=True)),
        "images": (images, read_images(images, labels)),
        "arrays": (arrays, read_arrays(arrays)),
        "series": (numbers, read_series(numbers, "c", length=6)),
        "text": (text, read_text(text, length=8)),
    }


@pytest.mark.parametrize("kind", ["table", "table as it is", "regression", "images", "arrays"])
def test_the_training_file_itself_gives_the_samples_of_training(
    sources: dict[str, tuple[Path, Samples]], kind: str
) -> None:
    path, samples = sources[kind]
    assert np.array_equal(read_unseen(path, samples), samples.x)


def test_a_series_is_asked_about_its_next_value_too(sources: dict[str, tuple[Path, Samples]]) -> None:
    path, samples = sources["series"]
    x = read_unseen(path, samples)
    assert len(x) == len(samples.x) + 1 and np.array_equal(x[:-1], samples.x)


def test_a_text_is_asked_about_what_follows_its_end(
    sources: dict[str, tuple[Path, Samples]], tmp_path: Path
) -> None:
    _, samples = sources["text"]
    short = written(tmp_path / "s.txt", "over the lazy\n")
    (window,) = read_unseen(short, samples)
    assert "".join(samples.about["alphabet"][token] for token in window) == "the lazy"
    with pytest.raises(InvalidData, match="has no 'Z'"):
        read_unseen(written(tmp_path / "z.txt", "over the laZy"), samples)
    with pytest.raises(InvalidData, match="a window has 8"):
        read_unseen(written(tmp_path / "z.txt", "lazy"), samples)


def test_columns_are_found_by_name_and_the_target_is_not_needed(
    sources: dict[str, tuple[Path, Samples]], tmp_path: Path
) -> None:
    _, samples = sources["table"]
    turned = "note,height,age\n" + "".join(f"{n},{n * 0.5 + n % 3},{n}\n" for n in range(12))
    assert np.array_equal(read_unseen(written(tmp_path / "u.csv", turned), samples), samples.x)
    with pytest.raises(InvalidData, match="no column 'height'"):
        read_unseen(written(tmp_path / "u.csv", "age\n3\n"), samples)
    with pytest.raises(InvalidData, match="row 3: column 'age': 'old'"):
        read_unseen(written(tmp_path / "u.csv", "age,height\n3,4\nold,4\n"), samples)
    with pytest.raises(InvalidData, match="there are no rows"):
        read_unseen(written(tmp_path / "u.csv", "age,height\n"), samples)


def test_data_of_another_shape_is_refused(sources: dict[str, tuple[Path, Samples]], tmp_path: Path) -> None:
    np.savez(tmp_path / "b.npz", x=np.zeros((3, 4)))
    with pytest.raises(InvalidData, match=r"the model takes samples of \(3,\)"):
        read_unseen(tmp_path / "b.npz", sources["arrays"][1])
    np.savez(tmp_path / "b.npz", x=np.zeros((3, 3), np.int64))
    with pytest.raises(InvalidData, match="holds tokens"):
        read_unseen(tmp_path / "b.npz", sources["arrays"][1])
    with pytest.raises(InvalidData, match="no array x"):
        read_unseen(written(tmp_path / "c.npz", "nothing"), sources["arrays"][1])


FAMILIES = {
    "table": "{family: mlp, hidden: [5]}",
    "regression": "{family: mlp, hidden: [5]}",
    "series": "{family: lstm, features: 4, depth: 1}",
    "text": "{family: transformer, features: 8, depth: 1, heads: 2}",
}


@pytest.mark.parametrize("kind", FAMILIES)
def test_what_the_command_says_is_what_the_specification_computes(
    sources: dict[str, tuple[Path, Samples]], kind: str, tmp_path: Path
) -> None:
    path, samples = sources[kind]
    write_prepared(samples, tmp_path / "prepared", 10)
    metric = {"regression": "mse", "series": "mse", "text": "cross_entropy"}.get(kind, "accuracy")
    task_file = written(
        tmp_path / "task.yaml",
        f"title: x\nmodel: {FAMILIES[kind]}\ndata: {{prepared: prepared}}\nmetric: {metric}\n"
        "windows: {train_s: 20, validate_s: 8, challenge_s: 6}\ntest: {fragments: 2}\n",
    )
    task = read_task_file(task_file)
    form, _, _ = load_data(task)
    architecture = task.model.architecture(form)
    tensors = parameters(architecture)
    model = written(tmp_path / "model.safetensors", encode_model(tensors, architecture))

    x = read_unseen(path, form)
    exact = specification.run(specification.prepare(tensors, architecture), architecture, x)
    outputs = exact.q * 2.0 ** -exact.fraction.reshape(
        exact.fraction.shape + (1,) * (exact.q.ndim - exact.fraction.ndim)
    )
    found = predict(model.read_bytes(), architecture, form, x)
    assert len(found) == len(x)
    if kind in ("regression", "series"):
        place = samples.about["columns"].index("c") if kind == "series" else 0
        mean = samples.about["mean" if kind == "series" else "target_mean"][place]
        scale = samples.about["scale" if kind == "series" else "target_scale"][place]
        assert np.allclose([each.values for each in found], outputs * scale + mean)
    else:
        last = outputs[:, -1] if outputs.ndim == 3 else outputs
        names = samples.about.get("labels") or samples.about["alphabet"]
        assert [each.choices[0].label for each in found] == [names[row.argmax()] for row in last]
        assert all(0 <= choice.probability <= 1 for each in found for choice in each.choices)

    arguments = [str(model), str(path), "--task", str(task_file), "-o", str(tmp_path / "out.csv")]
    done = CliRunner().invoke(app, ["predict", *arguments, "--json"])
    assert done.exit_code == 0, done.output
    rows = json.loads(done.output)["predictions"]
    with (tmp_path / "out.csv").open(newline="") as file:
        assert len(rows) == len(list(csv.DictReader(file))) == len(x)
    assert CliRunner().invoke(app, ["predict", *arguments]).exit_code == 0


def test_a_file_that_is_no_model_of_the_task_is_refused(
    sources: dict[str, tuple[Path, Samples]], tmp_path: Path
) -> None:
    path, samples = sources["table"]
    write_prepared(samples, tmp_path / "prepared", 10)
    task = written(
        tmp_path / "task.yaml",
        "title: x\nmodel: {family: mlp, hidden: [5]}\ndata: {prepared: prepared}\nmetric: accuracy\n"
        "windows: {train_s: 20, validate_s: 8, challenge_s: 6}\ntest: {fragments: 2}\n",
    )
    model = written(tmp_path / "model.safetensors", b"\0" * 40)
    done = CliRunner().invoke(app, ["predict", str(model), str(path), "--task", str(task)])
    assert done.exit_code != 0 and "safetensors" in str(done.exception)
    done = CliRunner().invoke(app, ["predict", str(tmp_path / "none"), str(path), "--task", str(task)])
    assert "cannot read" in str(done.exception)
