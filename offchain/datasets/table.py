"""Tables and series: CSV with a header, numbers in all columns but the one with the labels.

Guarantees: a cell that is no finite float32 is refused with its row (the line in the file) and column;
nothing is guessed, filled in or left out.

Source: design section 7 (tabular data, series).
"""

from __future__ import annotations

import csv
from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from offchain.datasets.samples import InvalidData, Samples, check_vocabulary, standardised
from protocol.architecture import MAX_DIMENSION

MAX_CELLS: Final = 2**30
"""Four gibibytes of numbers."""
MAX_CELL_CHARACTERS: Final = 4096
_LARGEST: Final = float(np.finfo(np.float32).max)

Progress = Callable[[int], None]
"""Is told how many rows have been read."""


def _silent(_: int) -> None:
    pass


class _Rows:
    """A CSV file's header and its rows, each checked for its number of cells."""

    def __init__(self, path: Path, delimiter: str, progress: Progress) -> None:
        self.path, self.line = path, 1
        self._delimiter, self._progress = delimiter, progress
        self.columns: list[str] = []

    def __iter__(self) -> Iterator[list[str]]:
        csv.field_size_limit(MAX_CELL_CHARACTERS)
        try:
            with self.path.open(newline="", encoding="utf-8-sig") as file:
                reader = csv.reader(file, delimiter=self._delimiter, strict=True)
                self.columns = [name.strip() for name in next(reader, [])]
                self._check_header()
                for count, row in enumerate(reader, 1):
                    self.line = reader.line_num
                    if not row:
                        continue
                    if len(row) != len(self.columns):
                        raise self.fault(f"{len(row)} cells under {len(self.columns)} columns")
                    if not count % 4096:
                        self._progress(count)
                    yield row
        except csv.Error as reason:
            raise self.fault(str(reason)) from reason
        except UnicodeDecodeError as reason:
            raise InvalidData(f"{self.path} is not UTF-8 at byte {reason.start}") from reason
        except OSError as reason:
            raise InvalidData(f"cannot read {self.path}: {reason.strerror}") from reason

    def _check_header(self) -> None:
        if len(self.columns) < 1 or any(not name for name in self.columns):
            raise InvalidData(f"{self.path}: the first row must name every column")
        doubled = sorted({name for name in self.columns if self.columns.count(name) > 1})
        if doubled:
            raise InvalidData(f"{self.path}: two columns are called {doubled[0]!r}")
        if all(_number(name) is not None for name in self.columns):
            raise InvalidData(f"{self.path}: the first row must name the columns, it holds numbers")

    def fault(self, text: str) -> InvalidData:
        """An error in the present row."""
        return InvalidData(f"{self.path}: row {self.line}: {text}")

    def number(self, cell: str, column: str) -> float:
        """A cell as a number; raises `InvalidData` naming its place."""
        value = _number(cell)
        if value is None:
            raise self.fault(f"column {column!r}: {cell[:40]!r} is no finite number within float32")
        return value


def _number(cell: str) -> float | None:
    try:
        value = float(cell)
    except ValueError:
        return None
    # NaN compares false; "1_000" is Python's, not CSV's.
    return value if abs(value) <= _LARGEST and "_" not in cell else None


def read_table(
    path: Path,
    target: str | None,
    *,
    regression: bool = False,
    delimiter: str = ",",
    standardise: bool = True,
    progress: Progress = _silent,
) -> Samples:
    """One sample per row; ``target`` (the last column if none) holds its label, or its value in a regression.

    Raises:
        InvalidData: a cell, a row or the header cannot be used.
    """
    rows = _Rows(path, delimiter, progress)
    cells, labels, values = array("f"), [], array("f")
    place, names = -1, list[str]()
    for row in rows:
        if place < 0:
            place = _place(rows, target)
            names = [*rows.columns[:place], *rows.columns[place + 1 :]]
        said = row.pop(place)
        if regression:
            values.append(rows.number(said, rows.columns[place]))
        elif said.strip():
            labels.append(said.strip())
        else:
            raise rows.fault(f"column {rows.columns[place]!r}: there is no label")
        cells.extend(rows.number(cell, name) for cell, name in zip(row, names, strict=True))
        if len(cells) > MAX_CELLS:
            raise rows.fault(f"more than {MAX_CELLS} cells")
    if place < 0:
        raise InvalidData(f"{path}: there are no rows")
    if not 1 <= len(names) <= MAX_DIMENSION:
        raise InvalidData(f"{path}: 1 to {MAX_DIMENSION} columns beside the target, not {len(names)}")
    x = np.frombuffer(cells, np.float32).reshape(-1, len(names))
    about: dict[str, Any] = {"columns": names, "target": rows.columns[place]}
    if standardise:
        x, about["mean"], about["scale"] = standardised(x)
    if regression:
        y: NDArray[Any] = np.frombuffer(values, np.float32).reshape(-1, 1)
        if standardise:
            y, about["target_mean"], about["target_scale"] = standardised(y)
    else:
        y, about["labels"] = _labels(labels, path)
    return Samples(x, y, about)


def _place(rows: _Rows, target: str | None) -> int:
    if target is None:
        return len(rows.columns) - 1
    if target not in rows.columns:
        raise InvalidData(f"{rows.path} has no column {target!r}; it has {', '.join(rows.columns[:20])}")
    return rows.columns.index(target)


def _labels(said: Sequence[str], path: Path) -> tuple[NDArray[Any], list[str]]:
    names = sorted(
        set(said), key=lambda name: (not name.isdecimal(), int(name) if name.isdecimal() else 0, name)
    )
    check_vocabulary(len(names), f"{path}: labels")
    number = {name: index for index, name in enumerate(names)}
    return np.array([number[name] for name in said], np.int32), names


def read_series(
    path: Path,
    target: str | None,
    *,
    length: int,
    delimiter: str = ",",
    standardise: bool = True,
    progress: Progress = _silent,
) -> Samples:
    """Rows in time order: from each ``length`` rows the next value of ``target`` is to be told.

    Windows overlap, so a random split into training and test fragments shows the model most of the rows;
    what it measures is one step ahead, not how a series goes on after its end.

    Raises:
        InvalidData: a cell, a row or the header cannot be used, or there are too few rows.
    """
    rows, cells, place = _Rows(path, delimiter, progress), array("f"), -1
    for row in rows:
        place = _place(rows, target) if place < 0 else place
        cells.extend(rows.number(cell, name) for cell, name in zip(row, rows.columns, strict=True))
        if len(cells) > MAX_CELLS:
            raise rows.fault(f"more than {MAX_CELLS} cells")
    if place < 0:
        raise InvalidData(f"{path}: there are no rows")
    table: NDArray[Any] = np.frombuffer(cells, np.float32).reshape(-1, len(rows.columns))
    about: dict[str, Any] = {"columns": rows.columns, "target": rows.columns[place], "length": length}
    if standardise:
        table, about["mean"], about["scale"] = standardised(table)
    return Samples(*windows(table, place, length), about)


def read_rows(
    path: Path, columns: Sequence[str], *, delimiter: str = ",", progress: Progress = _silent
) -> NDArray[Any]:
    """These columns of a table, in this order, ``[rows, columns]`` float32; others are passed over.

    Raises:
        InvalidData: one of them is missing, a cell is no number, or there are no rows.
    """
    rows, cells, places = _Rows(path, delimiter, progress), array("f"), list[int]()
    for row in rows:
        places = places or [_place(rows, name) for name in columns]
        cells.extend(rows.number(row[place], rows.columns[place]) for place in places)
        if len(cells) > MAX_CELLS:
            raise rows.fault(f"more than {MAX_CELLS} cells")
    if not places:
        raise InvalidData(f"{path}: there are no rows")
    return np.frombuffer(cells, np.float32).reshape(-1, len(columns))


def windows(table: NDArray[Any], place: int, length: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """All windows of ``length`` rows of a ``[rows, columns]`` table, and the value that follows each."""
    if not 1 <= length <= MAX_DIMENSION or len(table) <= length:
        raise InvalidData(f"{len(table)} rows hold no window of {length} and a value after it")
    if (len(table) - length) * length * table.shape[1] > MAX_CELLS:
        raise InvalidData(f"windows of {length} over {len(table)} rows make more than {MAX_CELLS} cells")
    views = np.lib.stride_tricks.sliding_window_view(table, length, 0)[:-1]
    x = np.ascontiguousarray(views.transpose(0, 2, 1))
    return x, np.ascontiguousarray(table[length:, place : place + 1])
