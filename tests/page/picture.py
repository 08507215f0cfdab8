"""Makes the README's picture: the page of a real order, settled on a local network a moment before.

    python -m tests.page.picture [docs/images/order.png]

Nothing in it is staged: three providers train, two validators score, four aggregators settle on a local
chain, and a headless Chromium opens the page of one of them. Takes two minutes on two cores.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path
from typing import Final

from playwright.sync_api import sync_playwright

from dtn.devnet import Devnet, Shape
from tests.end_to_end.driving import Driver
from tests.page.conftest import WAIT_MS, find_browser

HERE: Final = Path(__file__).resolve().parents[2] / "docs" / "images" / "order.png"
WINDOW: Final = {"width": 1120, "height": 640}
MOST_BYTES: Final = 200_000
"""The README is read on the web."""


def picture(url: str, oid: str, path: Path) -> None:
    """The order's page as a browser shows it."""
    browser_path = find_browser()
    if browser_path is None:
        raise SystemExit("no browser: install chromium (Debian: apt install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        page = browser.new_page(viewport=WINDOW, color_scheme="light")  # type: ignore[arg-type]
        page.goto(f"{url}/#/orders/{oid}")
        page.get_by_role("heading", level=1, name=re.compile("^Order 0x")).wait_for(timeout=WAIT_MS)
        page.wait_for_load_state("networkidle")
        path.parent.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=path)
        browser.close()


def main() -> int:
    """Run a network, place an order, wait until it is paid, look."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE
    with (
        tempfile.TemporaryDirectory(prefix="dtn-picture-") as folder,
        Devnet(Path(folder) / "devnet").lifetime(Shape(providers=3, validators=2)) as devnet,
    ):
        driver = Driver(devnet, Path(folder))
        oid = driver.put(train_s=40, validate_s=15)
        driver.settled(oid)
        picture(devnet.network().aggregators[0], oid, path)
    size = path.stat().st_size
    print(f"{path}: {size} bytes")
    return 0 if size <= MOST_BYTES else 1


if __name__ == "__main__":
    raise SystemExit(main())
