"""Makes the README's recording: what `dtn demo` writes to a terminal, as an SVG that plays once.

    python -m tests.page.recording [docs/images/demo.svg]

Nothing in it is staged: the command runs under a pseudo-terminal, a network with it, and each line appears
when it was written, `SPEED` times as fast. The picture loads nothing, neither fonts nor scripts. Where
nothing moves (on paper, or if the reader asks for less motion) it shows the last screen.

Only what rich writes is understood: lines, colours, and a last line that is written over; anything else a
program might do to a screen is an error, so that no recording shows what no terminal did.
"""

from __future__ import annotations

import codecs
import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Final

from rich.cells import cell_len
from rich.color import ColorTriplet
from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

HERE: Final = Path(__file__).resolve().parents[2] / "docs" / "images" / "demo.svg"
COMMAND: Final = ("dtn", "demo", "-o", "model.safetensors")
COLUMNS: Final = 108
ROWS: Final = 30
SPEED: Final = 4
MOST_BYTES: Final = 100_000
"""The README is read on the web."""
FRAME_S: Final = 0.8
"""Of a line that is written over again and again, what stood for less is left out."""

CHARACTER: Final = 7.2
LINE: Final = 15
SIZE: Final = 12
MARGIN: Final = 14
THEME: Final = TerminalTheme(
    (22, 24, 29),
    (214, 218, 226),
    [
        (40, 44, 52),
        (240, 113, 120),
        (126, 211, 133),
        (229, 192, 123),
        (97, 175, 239),
        (198, 120, 221),
        (86, 182, 194),
        (214, 218, 226),
    ],
)

ERASE: Final = "\r\x1b[2K"
UP: Final = "\r\x1b[1A\x1b[2K"
CURSOR: Final = re.compile(r"\x1b\[\?25[lh]")
HALF: Final = re.compile(r"(\r(\x1b\[[0-9;?]*[A-Za-z]?)*\x1b?|\x1b(\[[0-9;?]*)?)\Z")
SPINNER: Final = re.compile(r"[\u2800-\u28ff]")
COLOUR: Final = re.compile(r"\x1b\[[0-9;]*m")


class NotUnderstood(ValueError):
    """A control sequence that the recorder does not know."""


@dataclass(frozen=True, slots=True)
class Shown:
    """What one line of the terminal held, from when to when; the last version stays."""

    row: int
    text: Text
    from_s: float
    to_s: float | None = None


def run(command: Sequence[str], environment: Mapping[str, str], folder: Path) -> list[tuple[float, str]]:
    """Run a command in a terminal; what it wrote, and when, from its start.

    Raises:
        SystemExit: the command failed; with its last words.
    """
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    began = time.monotonic()
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=dict(environment), cwd=folder
    )
    os.close(theirs)
    pieces: list[tuple[float, str]] = []
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        while data := os.read(ours, 65_536):
            pieces.append((time.monotonic() - began, decoder.decode(data)))
    except OSError:
        pass  # how Linux says that nobody has the other end open
    finally:
        os.close(ours)
    if process.wait() != 0:
        raise SystemExit(f"{' '.join(command)} failed:\n{''.join(text for _, text in pieces)[-2000:]}")
    return pieces


def lines(pieces: Sequence[tuple[float, str]]) -> list[Shown]:
    """What stood in every line of the terminal, and when."""
    done: list[Shown] = []
    row, open_line = 0, ""
    for at_s, text in _steps(pieces):
        if text == UP:
            row -= 1
            done = [
                replace(each, to_s=at_s) if each.row == row and each.to_s is None else each for each in done
            ]
            open_line = ""
            continue
        open_line = (open_line + text).removesuffix("\n").rpartition(ERASE)[2]
        done = _written(done, Shown(row, Text.from_ansi(_checked(open_line)), at_s))
        if text.endswith("\n"):
            row, open_line = row + 1, ""
    return [each for each in done if each.text.plain.strip()]


def _steps(pieces: Sequence[tuple[float, str]]) -> Iterator[tuple[float, str]]:
    """The same in steps that end a line, go up one, or are written over."""
    for at_s, piece in _whole(pieces):
        text = CURSOR.sub("", piece).replace("\r\n", "\n")
        for step in re.split(rf"({re.escape(UP)})|(?<=\n)", text):
            if step:
                yield at_s, step


def _whole(pieces: Sequence[tuple[float, str]]) -> Iterator[tuple[float, str]]:
    """Pieces that end in no half of a control sequence."""
    kept = ""
    for at_s, piece in pieces:
        text = kept + piece
        cut = HALF.search(text)
        kept = cut.group() if cut else ""
        if text := text.removesuffix(kept):
            yield at_s, text


def _checked(text: str) -> str:
    unknown = COLOUR.sub("", text)
    if any(ord(character) < 32 or ord(character) == 127 for character in unknown):
        raise NotUnderstood(f"the recorder does not know what {text[:100]!r} does to a screen")
    return text


def _written(done: list[Shown], now: Shown) -> list[Shown]:
    """With a line that takes the place of what stood there; that is left out if it stood briefly."""
    if not (done and done[-1].row == now.row and done[-1].to_s is None):
        return [*done, now]
    *older, before = done
    if SPINNER.sub("", now.text.plain) == SPINNER.sub("", before.text.plain):
        return done
    if now.from_s - before.from_s >= FRAME_S:
        return [*older, replace(before, to_s=now.from_s), now]
    if older and older[-1].row == now.row:
        older[-1] = replace(older[-1], to_s=now.from_s)
    return [*older, now]


def svg(shown: Sequence[Shown], title: str) -> str:
    """The picture."""
    rows = max(each.row for each in shown) + 1
    width, height = 2 * MARGIN + COLUMNS * CHARACTER, 2 * MARGIN + min(rows, ROWS) * LINE
    end_s = max(each.from_s for each in shown) / SPEED + 1
    body = "\n".join(_line(each) for each in shown)
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height}" role="img">
<title>{escape(title)}</title>
<style>
text {{ white-space: pre; font: {SIZE}px ui-monospace, SFMono-Regular, Menlo, Consolas, \
"DejaVu Sans Mono", monospace; fill: {THEME.foreground_color.hex} }}
.b {{ font-weight: bold }}
.s {{ transform: translateY({-LINE * max(0, rows - ROWS)}px) }}
.o {{ visibility: hidden }}
@media (prefers-reduced-motion: no-preference) {{
@keyframes in {{ from {{ visibility: hidden }} to {{ visibility: visible }} }}
@keyframes out {{ from, to {{ visibility: visible }} }}
@keyframes scroll {{ {_scroll(shown, end_s)} }}
.i {{ animation: in 1ms backwards }}
.o {{ animation: out 1s }}
.s {{ animation: scroll {end_s:.2f}s step-end }}
}}
</style>
<rect width="100%" height="100%" rx="8" fill="{THEME.background_color.hex}"/>
<svg x="{MARGIN}" y="{MARGIN}" width="{COLUMNS * CHARACTER:g}" height="{min(rows, ROWS) * LINE}"><g class="s">
{body}
</g></svg>
</svg>
"""


def _scroll(shown: Sequence[Shown], end_s: float) -> str:
    """Where the terminal stands when: the newest line is its last."""
    steps, newest = {0.0: 0}, 0
    for each in sorted(shown, key=lambda each: each.from_s):
        newest = max(newest, each.row)
        steps[round(100 * each.from_s / SPEED / end_s, 2)] = max(0, newest + 1 - ROWS)
    moves = list(steps.items())
    kept = [move for move, before in zip(moves, [(0.0, -1), *moves], strict=False) if move[1] != before[1]]
    return " ".join(f"{at:g}% {{ transform: translateY({-LINE * up}px) }}" for at, up in kept)


def _line(shown: Shown) -> str:
    name, timing = "i", f"animation-delay:{shown.from_s / SPEED:.2f}s"
    if shown.to_s is not None:
        name, timing = "o", f"{timing};animation-duration:{(shown.to_s - shown.from_s) / SPEED:.2f}s"
    spans = "".join(_span(text) for text in _runs(shown.text))
    length = f'textLength="{cell_len(shown.text.plain.rstrip()) * CHARACTER:.1f}"'
    height = LINE * shown.row + SIZE
    return f'<text class="{name}" style="{timing}" y="{height}" {length}>{spans}</text>'


def _runs(text: Text) -> Iterator[Text]:
    """Pieces of one style each."""
    text = text.copy()
    text.rstrip()
    edges = sorted({0, len(text), *(edge for span in text.spans for edge in (span.start, span.end))})
    yield from (piece for piece in text.divide(edges[1:-1]) if piece)


def _span(piece: Text) -> str:
    style = piece.get_style_at_offset(Console(), 0)
    words = escape(piece.plain)
    classes = ' class="b"' * bool(style.bold)
    colour: ColorTriplet | None = style.color.get_truecolor(THEME) if style.color else None
    fill = f' fill="{colour.hex}"' if colour else ""
    return f"<tspan{classes}{fill}>{words}</tspan>" if classes or fill else words


def main() -> int:
    """Run the demo in a folder of its own, and draw what it wrote."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE
    with tempfile.TemporaryDirectory(prefix="dtn-recording-") as folder:
        environment = {**os.environ, "DTN_HOME": f"{folder}/home", "TERM": "xterm-256color"}
        pieces = run(COMMAND, environment, Path(folder))
    prompt = Shown(0, Text(f"$ {' '.join(COMMAND)}", "bold"), 0.0)
    shown = [prompt, *(replace(each, row=each.row + 1) for each in lines(pieces))]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        svg(shown, "What dtn demo writes, from an empty network to the payments"), encoding="utf-8"
    )
    size = path.stat().st_size
    print(f"{path}: {size} bytes, {pieces[-1][0]:.1f} s played in {pieces[-1][0] / SPEED:.1f}")
    return 0 if size <= MOST_BYTES else 1


if __name__ == "__main__":
    raise SystemExit(main())
