"""Task files that people get wrong: refused with the field and the reason, before any money could move."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from offchain.client.model_section import Model
from offchain.client.task_file import Source, load_data, load_samples, read_task_file
from offchain.datasets.builtin import BUILTIN
from offchain.datasets.prepared import write_prepared
from protocol.architecture import shapes
from protocol.errors import InvalidDocument

GOOD = """
model: {family: mlp, hidden: [8]}
data: {dataset: digits}
windows: {train_s: 60, validate_s: 20, challenge_s: 20}
"""


def read(folder: Path, text: str) -> object:
    path = folder / "task.yaml"
    path.write_text(text)
    return read_task_file(path)


def test_a_good_file_has_sensible_defaults(tmp_path: Path) -> None:
    (tmp_path / "task.yaml").write_text(GOOD)
    task = read_task_file(tmp_path / "task.yaml")
    assert task.metric == "accuracy" and task.test.fragments == 3 and task.test.of is None
    assert task.baseline_millionths == -(2**63), "without a baseline every valid model may win"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("family: mlp", "family: gpt"), "model.family"),
        (("{family: mlp, hidden: [8]}", "{}"), "either `family` or `layers`"),
        (("hidden: [8]", "channels: [8]"), "`channels` belongs to family cnn, resnet"),
        (("dataset: digits", "dataset: imagenet"), "data.dataset"),
        (("train_s: 60", "train_s: -1"), "windows.train_s"),
        (("train_s: 60", "train_s: soon"), "windows.train_s"),
        (("windows:", "window:"), "windows"),
        (("windows:", "baseline: .nan\nwindows:"), "baseline"),
        (("windows:", "baseline: 1e40\nwindows:"), "baseline"),
        (("windows:", "test: {of: 15}\nwindows:"), "how many `fragments`"),
        (("windows:", "test: {fragments: 3, of: 5}\nwindows:"), "test.of"),
        (("{dataset: digits}", "{dataset: digits"), "is not YAML"),
    ],
)
def test_a_bad_file_names_the_field(tmp_path: Path, change: tuple[str, str], reason: str) -> None:
    with pytest.raises(InvalidDocument, match="(?s)" + reason.replace("{", r"\{")):
        read(tmp_path, GOOD.replace(*change))


@pytest.mark.parametrize("size", [-1, 0, 10**8])
@pytest.mark.parametrize("family", ["family: mlp, hidden: [SIZE]", "family: cnn, channels: [SIZE]"])
def test_a_layer_of_an_impossible_size_is_refused_with_the_size(
    tmp_path: Path, family: str, size: int
) -> None:
    (tmp_path / "task.yaml").write_text(
        GOOD.replace("family: mlp, hidden: [8]", family.replace("SIZE", str(size)))
    )
    with pytest.raises(InvalidDocument, match=f"a size of {size} is refused"):
        read_task_file(tmp_path / "task.yaml").model.architecture(BUILTIN["digits"]())


def test_an_archive_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data.npz").write_bytes(b"PK\x03\x04" + b"garbage" * 20)
    with pytest.raises(InvalidDocument, match="no arrays x and y"):
        load_samples(Source(npz=tmp_path / "data.npz"))


def test_files_that_are_no_text_or_not_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidDocument, match="cannot read"):
        read_task_file(tmp_path / "missing.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidDocument, match="cannot read"):
        read_task_file(tmp_path / "binary.yaml")


def npz(folder: Path, **arrays: np.ndarray) -> Path:
    np.savez(folder / "data.npz", **arrays)
    (folder / "task.yaml").write_text(GOOD.replace("{dataset: digits}", "{npz: data.npz}"))
    return folder / "task.yaml"


def test_own_data_comes_from_an_npz_beside_the_task(tmp_path: Path) -> None:
    path = npz(tmp_path, x=np.ones((20, 3)), y=np.arange(20) % 4)
    samples = load_samples(read_task_file(path).data)
    assert samples.x.dtype == np.float32 and samples.classes == 4


@pytest.mark.parametrize(
    ("x", "y", "reason"),
    [
        (np.ones((20, 3), complex), np.zeros(20, np.int64), "x must hold numbers, it holds complex"),
        (np.ones((20, 3)), np.zeros(19, np.int64), "20 samples in x, 19 in y"),
        (np.ones(20), np.zeros(20, np.int64), "a sample"),
        (np.ones((5, 3)), np.zeros(5, np.int64), "at least 10 samples"),
        (np.ones((20, 3)), np.full(20, -1), r"y\[0\] is -1"),
        (np.array([object()] * 20), np.zeros(20, np.int64), "has no arrays x and y"),
    ],
)
def test_own_data_that_cannot_be_represented_is_refused(
    tmp_path: Path, x: np.ndarray, y: np.ndarray, reason: str
) -> None:
    path = npz(tmp_path, x=x, y=y)
    with pytest.raises(InvalidDocument, match=reason):
        load_samples(read_task_file(path).data)


def test_samples_are_dealt_out_whole_with_a_fresh_salt_each(tmp_path: Path) -> None:
    path = npz(tmp_path, x=np.arange(60.0).reshape(20, 3), y=np.arange(20) % 4)
    samples = load_samples(read_task_file(path).data)
    first, second = list(samples.fragments(10)), list(samples.fragments(10))
    assert sum(count for _, count in first) == 20
    assert not {data for data, _ in first} & {data for data, _ in second}


@pytest.mark.parametrize(
    ("model", "data", "ending"),
    [
        ("{family: mlp, hidden: [8]}", "diabetes", ("regression", (1,))),
        ("{family: resnet, channels: [4, 8], blocks: 1}", "digits", ("classification", (10,))),
        ("{family: lstm, features: 8, depth: 2, cell: gru}", "waves", ("regression", (1,))),
        ("{family: transformer, features: 8, depth: 1, heads: 2}", "python-docs", ("next_token", (64, None))),
    ],
)
def test_what_the_data_is_decides_what_a_family_puts_out(
    tmp_path: Path, model: str, data: str, ending: tuple[str, tuple[int | None, ...]]
) -> None:
    (tmp_path / "task.yaml").write_text(
        GOOD.replace("{family: mlp, hidden: [8]}", model).replace("{dataset: digits}", f"{{dataset: {data}}}")
    )
    task = read_task_file(tmp_path / "task.yaml")
    samples = load_samples(task.data)
    architecture = task.model.architecture(samples)
    shape = tuple(size or samples.vocabulary for size in ending[1])
    assert (architecture.output, shapes(architecture)[-1]) == (ending[0], shape)


def test_tokens_are_not_for_models_of_numbers() -> None:
    with pytest.raises(InvalidDocument, match="family mlp takes no tokens"):
        Model(family="mlp").architecture(BUILTIN["python-docs"]())


def test_prepared_data_is_put_as_it_was_prepared(tmp_path: Path) -> None:
    manifest = write_prepared(BUILTIN["digits"](), tmp_path / "prepared", 12)
    (tmp_path / "task.yaml").write_text(GOOD.replace("dataset: digits", "prepared: prepared"))
    form, classes, fragments = load_data(read_task_file(tmp_path / "task.yaml"))
    assert (form.outputs, classes) == (10, 10)
    assert [count for _, count in fragments] == [fragment.samples for fragment in manifest.fragments]
    (tmp_path / "task.yaml").write_text(
        GOOD.replace("dataset: digits", "prepared: prepared") + "test: {fragments: 3, of: 15}"
    )
    with pytest.raises(InvalidDocument, match=r"test\.of says 15"):
        load_data(read_task_file(tmp_path / "task.yaml"))
