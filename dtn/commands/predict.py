"""``dtn predict``: what a model that was fetched says of new data."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from dtn.output import JsonFlag, console, print_json, table, write_output
from offchain.client import read_task_file
from offchain.client.task_file import load_data
from protocol.errors import InvalidDocument

SHOWN: Final = 20


def predict(
    model: Annotated[Path, typer.Argument(help="The model's file, from `dtn get`.")],
    data: Annotated[
        Path, typer.Argument(help="CSV, series, text, NumPy archive or images, as it was trained on.")
    ],
    task: Annotated[Path, typer.Option(help="The task file that the order was put with.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="A CSV file for all predictions.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Use a model: labels with their probabilities, values, or what comes next, for each sample."""
    from offchain import prediction

    said = read_task_file(task)
    form, _, _ = load_data(said)
    architecture = said.model.architecture(form)
    try:
        file = model.read_bytes()
    except OSError as reason:
        raise InvalidDocument(f"cannot read {model}: {reason.strerror}") from reason
    found = prediction.predict(file, architecture, form, prediction.read_unseen(data, form))
    rows = [_row(number, each) for number, each in enumerate(found, 1)]
    if out is not None:
        write_output(out, _csv(rows))
    if as_json:
        print_json({"model": str(model), "data": str(data), "predictions": rows})
        return
    shown = [tuple(_shown(value) for value in row.values()) for row in rows[:SHOWN]]
    table(f"{len(rows)} predictions", tuple(rows[0]), shown)
    if len(rows) > SHOWN:
        console.print(f"{len(rows) - SHOWN} more; write them all with --out FILE", soft_wrap=True)


def _row(number: int, said: Any) -> dict[str, Any]:
    if said.values:
        names = ["value"] if len(said.values) == 1 else [f"value {n}" for n in range(1, len(said.values) + 1)]
        return {"sample": number, **dict(zip(names, said.values, strict=True))}
    best, *others = said.choices
    return {
        "sample": number,
        "label": best.label,
        "probability": round(best.probability, 6),
        "else": ", ".join(f"{other.label} {other.probability:.3f}" for other in others[:2]),
    }


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else repr(value) if value in ("\n", " ") else str(value)


def _csv(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
