"""The benchmark of faithfulness scores every sample once, by a model that has not seen it. No figures."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks import faithfulness


@pytest.mark.parametrize("data", [faithfulness.images, faithfulness.rows])
def test_halves_are_scored_by_who_has_not_seen_them(data: Callable[[int], faithfulness.Folds]) -> None:
    (training, unseen), (training_too, unseen_too) = data(3)
    assert len(training.y) + len(unseen.y) == 1797
    for one, other in ((training, unseen_too), (unseen, training_too)):
        assert np.array_equal(one.x, other.x) and np.array_equal(one.y, other.y)
    seen = {sample.tobytes() for sample in training.x}
    assert not any(sample.tobytes() in seen for sample in unseen.x)


def test_what_is_printed_is_the_score_over_all_halves(
    capsys: pytest.CaptureFixture[str],
) -> None:
    faithfulness.main(["--family", "mlp", "--steps", "40", "--seeds", "1", "--json"])
    (row,) = json.loads(capsys.readouterr().out)["models"]
    assert (row["model"], row["bar"]) == ("mlp", 0.2)
    assert row["shift"] == pytest.approx(100 * (row["exact"] - row["float32"]))
    assert row["within"] == (abs(row["shift"]) <= 0.2 + 1e-9)
    # A number of the 1,797 digits, not of one half.
    for score in (row["exact"], row["float32"]):
        assert score * 1797 == pytest.approx(round(score * 1797), abs=0.002) and 0.3 < score <= 1


def test_what_cannot_be_measured_is_said_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for given, why in (
        (["--mnist", str(tmp_path)], "holds no single file of images"),
        (["--seeds", "0"], "--steps and --seeds"),
    ):
        with pytest.raises(SystemExit, match="2"):
            faithfulness.main(given)
        assert why in capsys.readouterr().err.splitlines()[-1]
