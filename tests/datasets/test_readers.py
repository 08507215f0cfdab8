"""Files become samples exactly, or are refused with the place of what is wrong."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from offchain.datasets.builtin import BUILTIN
from offchain.datasets.files import read_arrays, read_images, read_text
from offchain.datasets.samples import InvalidData
from offchain.datasets.table import read_series, read_table

ROWS = "\n".join(f"{n},{n * 0.5},{'ab'[n % 2]}" for n in range(12))
TABLE = f"age,height,kind\n{ROWS}\n"


def written(folder: Path, text: str | bytes, name: str = "data.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def idx(kind: int, shape: tuple[int, ...], data: bytes) -> bytes:
    sizes = b"".join(size.to_bytes(4, "big") for size in shape)
    return bytes([0, 0, kind, len(shape)]) + sizes + data


def test_a_table_is_taken_as_it_stands(tmp_path: Path) -> None:
    samples = read_table(written(tmp_path, TABLE), None, standardise=False)
    assert samples.x.tolist() == [[n, n * 0.5] for n in range(12)]
    assert samples.y.tolist() == [n % 2 for n in range(12)]
    assert samples.about["labels"] == ["a", "b"] and samples.about["columns"] == ["age", "height"]
    assert (samples.output, samples.classes, samples.outputs) == ("classification", 2, 2)


def test_a_standardised_table_can_be_turned_back(tmp_path: Path) -> None:
    numbers = "a,b,c\n" + "\n".join(f"{n},7,{n * n}" for n in range(12))
    samples = read_table(written(tmp_path, numbers), "c", regression=True)
    back = samples.x * samples.about["scale"] + samples.about["mean"]
    assert np.allclose(back, [[n, 7] for n in range(12)], atol=1e-5)
    values = samples.y * samples.about["target_scale"] + samples.about["target_mean"]
    assert np.allclose(values[:, 0], [n * n for n in range(12)], atol=1e-4)
    assert samples.output == "regression" and samples.classes is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("3,1.5,b", "3,tall,b"), "row 5: column 'height': 'tall' is no finite number"),
        (("3,1.5,b", "3,,b"), "row 5: column 'height': ''"),
        (("3,1.5,b", "3,nan,b"), "row 5: column 'height': 'nan'"),
        (("3,1.5,b", "3,1e39,b"), "row 5: column 'height': '1e39'"),
        (("3,1.5,b", "3,1_000,b"), "row 5: column 'height': '1_000'"),
        (("3,1.5,b", "3,1.5"), "row 5: 2 cells under 3 columns"),
        (("3,1.5,b", "3,1.5, "), "row 5: column 'kind': there is no label"),
        (("3,1.5,b", '3,"1.5,b'), "row "),
        (("age,height,kind\n", "1,2,3\n"), "must name the columns, it holds numbers"),
        (("age,height,kind", "age,age,kind"), "two columns are called 'age'"),
        (("age,height,kind", "age,,kind"), "must name every column"),
        ((",b", ",a"), "labels: 1 different ones"),
        ((TABLE, "age,height,kind\n"), "there are no rows"),
        ((TABLE, ""), "must name every column"),
        (("11,5.5,b\n10,5.0,a", ""), ""),
        ((ROWS, "1,2,a\n2,3,b"), "at least 10 samples, here are 2"),
    ],
)
def test_a_table_that_is_wrong_names_row_and_column(
    tmp_path: Path, change: tuple[str, str], reason: str
) -> None:
    path = written(tmp_path, TABLE.replace(*change))
    if not reason:
        assert read_table(path, None).classes == 2
        return
    with pytest.raises(InvalidData, match=reason):
        read_table(path, None)


def test_what_is_no_text_at_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match="not UTF-8 at byte 0"):
        read_table(written(tmp_path, b"\xff\xfe\x00"), None)
    with pytest.raises(InvalidData, match="no column 'weight'"):
        read_table(written(tmp_path, TABLE), "weight")
    with pytest.raises(InvalidData, match="cannot read"):
        read_table(tmp_path / "missing.csv", None)
    with pytest.raises(InvalidData, match="field larger"):
        read_table(written(tmp_path, TABLE + "1,2," + "x" * 10_000), None)


@given(st.binary(max_size=400))
def test_no_bytes_do_anything_but_be_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = written(tmp_path_factory.mktemp("any"), data)
    for read in (
        lambda: read_table(path, None),
        lambda: read_series(path, None, length=2),
        lambda: read_images(path, path),
        lambda: read_arrays(path),
        lambda: read_text(path, length=4),
    ):
        try:
            read()
        except InvalidData as reason:
            assert str(path) in str(reason) or "samples" in str(reason)


def test_a_series_gives_every_window_and_the_value_after_it(tmp_path: Path) -> None:
    text = "t,v\n" + "\n".join(f"{n},{n * 10}" for n in range(20))
    samples = read_series(written(tmp_path, text), "v", length=4, standardise=False)
    assert samples.x.shape == (16, 4, 2) and samples.y.shape == (16, 1)
    assert samples.x[3].tolist() == [[n, n * 10] for n in range(3, 7)] and samples.y[3, 0] == 70
    with pytest.raises(InvalidData, match="20 rows hold no window of 20"):
        read_series(written(tmp_path, text), "v", length=20)


def test_images_are_read_from_idx_packed_or_not(tmp_path: Path) -> None:
    pixels = bytes(range(96)) + bytes(64)
    images = written(tmp_path, idx(8, (10, 4, 4), pixels), "images")
    labels = written(tmp_path, gzip.compress(idx(8, (10,), bytes(range(10)))), "labels.gz")
    samples = read_images(images, labels)
    assert samples.x.shape == (10, 4, 4, 1) and samples.x.tobytes() == pixels
    assert samples.y.tolist() == list(range(10)) and samples.classes == 10


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is no IDX file"),
        (idx(8, (10, 4, 4), bytes(159)), "has 159 bytes for it"),
        (idx(8, (2**31, 2**31, 2**31), b""), "has 0 bytes for it"),
        (idx(13, (10, 4, 4), bytes(640)), "must hold bytes in 3 axes, it has type 0x0d"),
        (idx(8, (10,), bytes(10)), "is no IDX file|must hold bytes in 3 axes"),
        (gzip.compress(bytes(100), mtime=0)[:-4], "cannot read"),
    ],
)
def test_images_that_lie_about_themselves_are_refused(tmp_path: Path, data: bytes, reason: str) -> None:
    labels = written(tmp_path, idx(8, (10,), bytes(10)), "labels")
    with pytest.raises(InvalidData, match=reason):
        read_images(written(tmp_path, data, "images"), labels)


def test_arrays_keep_their_meaning_or_are_refused_by_place(tmp_path: Path) -> None:
    def saved(**arrays: np.ndarray) -> Path:
        np.savez(tmp_path / "a.npz", **arrays)
        return tmp_path / "a.npz"

    labels = np.arange(12) % 3
    floats = np.linspace(0, 1, 24).reshape(12, 2)
    assert read_arrays(saved(x=floats, y=labels)).output == "classification"
    assert read_arrays(saved(x=floats, y=floats[:, 0])).y.shape == (12, 1)
    tokens = np.arange(48).reshape(12, 4) % 7
    told = read_arrays(saved(x=tokens, y=tokens))
    assert (told.output, told.vocabulary, told.classes) == ("next_token", 7, 7)
    wrong = floats.copy()
    wrong[5, 1] = np.inf
    with pytest.raises(InvalidData, match=r"x\[5, 1\] is inf"):
        read_arrays(saved(x=wrong, y=labels))
    with pytest.raises(InvalidData, match=r"y\[2\] is -1"):
        read_arrays(saved(x=floats, y=np.where(np.arange(12) == 2, -1, labels)))
    with pytest.raises(InvalidData, match="has no arrays x and y"):
        read_arrays(saved(x=floats))
    with pytest.raises(InvalidData, match="has no arrays x and y"):
        read_arrays(saved(x=np.array([None] * 12), y=labels))


def test_text_gives_the_character_after_each_character(tmp_path: Path) -> None:
    text = "der Bär wär’ 🐻 satt. " * 4
    samples = read_text(written(tmp_path, text, "t.txt"), length=8)
    alphabet = samples.about["alphabet"]
    told = ["".join(alphabet[t] for t in row) for row in samples.x]
    assert "".join(told) == text[: len(told) * 8]
    assert "".join(alphabet[t] for t in samples.y.reshape(-1)) == text[1 : len(told) * 8 + 1]
    assert samples.vocabulary == samples.classes == len(set(text)) and samples.output == "next_token"
    with pytest.raises(InvalidData, match="not UTF-8 at byte 3"):
        read_text(written(tmp_path, b"abc\xff", "u.txt"), length=8)


@pytest.mark.parametrize("name", BUILTIN)
def test_data_that_needs_no_file_is_there(name: str) -> None:
    samples = BUILTIN[name]()
    again = BUILTIN[name]()
    assert np.array_equal(samples.x, again.x) and np.array_equal(samples.y, again.y)
