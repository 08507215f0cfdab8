"""``dtn data``: turn files into prepared data, and look at it."""

from __future__ import annotations

import enum
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from dtn.output import JsonFlag, print_json, table
from offchain.datasets.builtin import BUILTIN
from offchain.datasets.files import read_arrays, read_images, read_text
from offchain.datasets.prepared import Manifest, read_manifest, write_prepared
from offchain.datasets.samples import InvalidData, Samples
from offchain.datasets.table import read_series, read_table

app = typer.Typer(help="Prepare data for an order.", no_args_is_help=True)


class Kind(enum.StrEnum):
    """What a file holds."""

    TABLE = "table"
    SERIES = "series"
    IMAGES = "images"
    ARRAYS = "arrays"
    TEXT = "text"


_SUFFIXES = {
    ".csv": Kind.TABLE,
    ".tsv": Kind.TABLE,
    ".npz": Kind.ARRAYS,
    ".txt": Kind.TEXT,
    ".md": Kind.TEXT,
}


@app.command()
def prepare(
    files: Annotated[
        list[str],
        typer.Argument(help=f"A file (images: their labels' file too), or one of: {', '.join(BUILTIN)}."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="A new folder for the fragments.")],
    kind: Annotated[Kind | None, typer.Option("--as", help="What it holds; else its name tells.")] = None,
    fragments: Annotated[int, typer.Option(help="How many fragments: 10 to 1024.")] = 15,
    target: Annotated[
        str | None, typer.Option(help="table, series: the column to be told; the last one if not given.")
    ] = None,
    regression: Annotated[
        bool, typer.Option("--regression", help="table: the target is a number, not a label.")
    ] = False,
    length: Annotated[int, typer.Option(help="series, text: rows or characters in one sample.")] = 64,
    raw: Annotated[
        bool, typer.Option("--raw", help="table, series: leave columns as they are, mean and scale too.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Cut a file into fragments with hashes. What a fragment cannot hold is refused, with row and column."""
    terminal = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=terminal,
        transient=True,
    ) as bar:
        reading = bar.add_task("rows read", total=None)
        samples = _read(
            files, kind, target, regression, length, not raw, lambda rows: bar.update(reading, completed=rows)
        )
        writing = bar.add_task("fragments", total=fragments)
        manifest = write_prepared(samples, out, fragments, lambda done: bar.update(writing, completed=done))
    _show(out, manifest, as_json)


@app.command()
def show(
    folder: Annotated[Path, typer.Argument(help="A folder of prepared data.")], as_json: JsonFlag = False
) -> None:
    """What a folder of prepared data holds."""
    _show(folder, read_manifest(folder), as_json)


def _read(
    files: list[str],
    kind: Kind | None,
    target: str | None,
    regression: bool,
    length: int,
    standardise: bool,
    progress: Callable[[int], None],
) -> Samples:
    if len(files) == 1 and files[0] in BUILTIN and kind is None:
        return BUILTIN[files[0]]()
    path = Path(files[0])
    kind = kind or _kind_of(path, len(files))
    if len(files) != (2 if kind is Kind.IMAGES else 1):
        wanted = "the images and their labels" if kind is Kind.IMAGES else "one file"
        raise InvalidData(f"{kind.value} takes {wanted}, not {len(files)} files")
    delimiter = "\t" if path.suffix == ".tsv" else ","
    match kind:
        case Kind.TABLE:
            return read_table(
                path,
                target,
                regression=regression,
                delimiter=delimiter,
                standardise=standardise,
                progress=progress,
            )
        case Kind.SERIES:
            return read_series(
                path,
                target,
                length=length,
                delimiter=delimiter,
                standardise=standardise,
                progress=progress,
            )
        case Kind.IMAGES:
            return read_images(path, Path(files[1]))
        case Kind.ARRAYS:
            return read_arrays(path)
        case Kind.TEXT:
            return read_text(path, length=length)


def _kind_of(path: Path, count: int) -> Kind:
    if count == 2:
        return Kind.IMAGES
    kind = _SUFFIXES.get(path.suffix)
    if kind is None:
        raise InvalidData(f"cannot tell what {path} holds: say --as {', '.join(kind.value for kind in Kind)}")
    return kind


def _show(folder: Path, manifest: Manifest, as_json: bool) -> None:
    if as_json:
        print_json({"folder": str(folder), **manifest.model_dump(mode="json")})
        return
    facts = [
        ("for", manifest.output),
        ("samples", manifest.samples),
        ("one sample", " x ".join(map(str, manifest.input_shape))),
        ("outputs", manifest.outputs),
        ("token ids", manifest.vocabulary),
        ("fragments", len(manifest.fragments)),
        ("bytes", sum(fragment.size_bytes for fragment in manifest.fragments)),
    ]
    table(str(folder), ("", ""), facts)
