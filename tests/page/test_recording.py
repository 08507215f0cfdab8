"""The recording shows what a terminal showed and when, plays in a browser, and loads nothing."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

import pytest
from playwright.sync_api import Browser

from tests.page.recording import HERE, MARGIN, MOST_BYTES, ROWS, SPEED, NotUnderstood, Shown, lines, run, svg

PROGRAM: Final = """
import time
from rich.console import Console
from rich.table import Table
console = Console()
console.print("a line", style="green")
with console.status("waiting for one") as status:
    time.sleep(2.0)
    console.print("found one")
    status.update("waiting for two")
    time.sleep(2.0)
grid = Table("what", "value")
grid.add_row("<&>", "[bold]7[/]")
console.print(grid)
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> list[Shown]:
    """What a program that writes as ours do showed in a terminal."""
    environment = {**os.environ, "TERM": "xterm-256color"}
    return lines(run([sys.executable, "-c", PROGRAM], environment, tmp_path_factory.mktemp("run")))


def words(shown: Shown) -> str:
    """A line without its spinner."""
    return re.sub(r"[\u2800-\u28ff] ", "", shown.text.plain).rstrip()


def test_lines_stay_and_what_is_written_over_is_shown_for_as_long_as_it_stood(told: list[Shown]) -> None:
    first, waiting, found, again, *table = told
    assert [words(each) for each in (first, waiting, found, again)] == [
        "a line",
        "waiting for one",
        "found one",
        "waiting for two",
    ]
    assert [each.row for each in (first, waiting, found, again)] == [0, 1, 1, 2]
    assert first.to_s is None and found.to_s is None, "they stay"
    assert waiting.to_s == found.from_s and waiting.to_s - waiting.from_s >= 1.0
    assert again.to_s is not None and again.to_s - again.from_s >= 1.0
    assert [words(each)[:1] for each in table] == ["┏", "┃", "┡", "│", "└"]
    assert [each.row for each in table] == [2, 3, 4, 5, 6], "the table begins where the last line was"


def test_the_same_is_understood_however_the_terminal_cuts_it() -> None:
    text = "one\r\n\x1b[?25l\x1b[32m⠋\x1b[0m wait\r\x1b[2K\x1b[1mtwo\x1b[0m\r\n"
    text += "⠙ wait\r\n\x1b[?25h\r\x1b[1A\x1b[2Kend\r\n"
    whole = [(each.row, each.text.plain) for each in lines([(0.0, text)]) if each.to_s is None]
    assert whole == [(0, "one"), (1, "two"), (2, "end")]
    for size in (1, 2, 3, 5):
        pieces = [(float(at), text[at : at + size]) for at in range(0, len(text), size)]
        cut = [(each.row, each.text.plain) for each in lines(pieces) if each.to_s is None]
        assert cut == whole


@pytest.mark.parametrize("sequence", ["\x1b[2J", "\x1b[10;10H", "\x1b]0;title\x07", "ab\rc", "a\bb"])
def test_what_is_not_understood_is_an_error_and_no_wrong_picture(sequence: str) -> None:
    with pytest.raises(NotUnderstood):
        lines([(0.0, f"one\r\n{sequence}two\r\n")])


def test_a_command_that_fails_leaves_no_recording(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no such thing"):
        run([sys.executable, "-c", "raise SystemExit('no such thing')"], os.environ, tmp_path)


PAUSED: Final = "<style>* { animation-play-state: paused !important }</style>"
"""What has ended cannot be wound back: it is no longer among the document's animations."""


def visible(svg_text: str, browser: Browser, after_s: float, motion: bool) -> set[str]:
    """What can be seen of a picture so long after it was opened, however slow the machine is."""
    context = browser.new_context(reduced_motion="no-preference" if motion else "reduce")
    page = context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.set_content(PAUSED + svg_text)
    page.evaluate(
        "at => document.getAnimations().forEach(each => { each.currentTime = at })",
        after_s * 1000,
    )
    seen = page.evaluate(
        """margin => { const box = document.querySelector('rect').getBoundingClientRect();
        const inset = margin * box.width / document.querySelector('svg').viewBox.baseVal.width;
        return [...document.querySelectorAll('text')].filter(each => {
            const own = each.getBoundingClientRect(), middle = (own.top + own.bottom) / 2;
            const inside = middle > box.top + inset && middle < box.bottom - inset;
            return inside && getComputedStyle(each).visibility === 'visible'
        }).map(each => each.textContent) }""",
        MARGIN,
    )
    context.close()
    assert not asked, "a picture that loads something"
    return {re.sub(r"[\u2800-\u28ff] ", "", text).rstrip() for text in seen}


def test_a_browser_plays_it_and_ends_on_the_last_screen(told: list[Shown], browser: Browser) -> None:
    tall = [*told, *(Shown(7 + n, told[0].text, 100.0) for n in range(ROWS))]
    picture = svg(tall, "a run")
    _, waiting, found, again, *_ = told
    assert again.to_s is not None
    during = visible(picture, browser, (waiting.from_s + 0.1) / SPEED, motion=True)
    assert during == {"a line", "waiting for one"}
    assert "waiting for two" in visible(picture, browser, (found.from_s + 0.9) / SPEED, motion=True)
    later = visible(picture, browser, (again.to_s + 1) / SPEED, motion=True)
    assert {"a line", "found one"} <= later and not {"waiting for one", "waiting for two"} & later
    assert visible(picture, browser, 200.0, motion=True) == {"a line"}, "the table has moved out above"
    assert visible(picture, browser, 0.0, motion=False) == {"a line"}, "the last screen at once"


def test_the_recording_in_the_readme_is_a_whole_paid_order_and_loads_nothing() -> None:
    text = HERE.read_text(encoding="utf-8")
    assert len(text.encode()) <= MOST_BYTES
    assert re.findall(r"\w+://[^\"' <)]+", text) == ["http://www.w3.org/2000/svg"]
    assert not re.search(r"@import|url\(|<script|<image|href", text)
    shown = "\n".join(
        "".join(each.itertext()) for each in ElementTree.fromstring(text).iter() if each.tag[-4:] == "text"
    )
    told = ("$ dtn demo", "phase training", "phase challenge", "sealed: won", "best model", "sha256 = MID")
    at = [shown.index(words) for words in told]
    assert at == sorted(at)
    assert not re.search(r"/(home|root|work)/", shown)
