"""Task files that people get wrong: refused with the field and the reason, before any money could move."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from offchain.client.task_file import Source, load_samples, read_task_file
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
    assert task.metric == "accuracy" and task.test.fragments == 3 and task.test.of == 15
    assert task.baseline_millionths == -(2**63), "without a baseline every valid model may win"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("family: mlp", "family: gpt"), "model.family"),
        (("{family: mlp, hidden: [8]}", "{}"), "either `family` or `layers`"),
        (("hidden: [8]", "channels: [8]"), "`channels` belongs to family cnn"),
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
        read_task_file(tmp_path / "task.yaml").model.architecture((8, 8, 1), 10)


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
        (np.ones((20, 3), np.int64), np.zeros(20, np.int64), "x must be float32 or uint8"),
        (np.ones((20, 3)), np.zeros(19, np.int64), "one integer label per sample"),
        (np.ones((20, 3)), np.zeros(20), "one integer label per sample"),
        (np.ones((5, 3)), np.zeros(5, np.int64), "at least ten samples"),
        (np.ones((20, 3)), np.full(20, -1), "labels must lie in"),
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
