"""The web page in a real browser over a real aggregator: live, hostile-proof, and usable by everybody."""

from __future__ import annotations

import itertools
import re
from typing import Final

import httpx
import pytest

from offchain.economics import record_of
from offchain.economics.history import past_of
from protocol.transactions import Cancel
from tests.ledger.world import who
from tests.page.conftest import WAIT_MS, Shown, Window
from tests.page.stage import HOSTILE

ACCOUNT: Final = "0x" + who("provider1").hex()
VIEWS: Final = {
    "orders": "#/orders",
    "order": "#/orders/{settled}",
    "running": "#/orders/{training}",
    "hostile": "#/orders/{hostile}",
    "nodes": "#/nodes",
    "committee": "#/committee",
    "settlements": "#/settlements",
    "account": f"#/accounts/{ACCOUNT}",
    "ask": "#/accounts",
    "put": "#/put",
}


def where(shown: Shown, name: str) -> str:
    """The address of a view."""
    return VIEWS[name].format(settled=shown.settled, training=shown.training, hostile=shown.hostile)


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_has_one_heading_names_for_all_controls_no_error_and_no_foreign_request(
    window: Window, shown: Shown, name: str
) -> None:
    page = window.open(where(shown, name))
    page.wait_for_function("document.getElementById('pulse').dataset.state === 'live'", timeout=WAIT_MS)
    assert page.locator("h1").count() == 1
    for control in page.locator("a, button, input, select, summary").all():
        assert control.evaluate(
            "node => (node.labels?.[0] ?? node).textContent.trim() || node.getAttribute('aria-label')"
        ), control.evaluate("node => node.outerHTML")
    assert page.locator("img:not([alt])").count() == 0
    levels = page.eval_on_selector_all("h1, h2, h3", "nodes => nodes.map(node => Number(node.tagName[1]))")
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels)), "no level is left out"
    window.keep(name)
    assert window.errors == [] and window.foreign == []


def test_an_order_tells_its_whole_story(window: Window, shown: Shown) -> None:
    page = window.open(where(shown, "order"))
    text = page.inner_text("main")
    for expected in (
        *("training", "validation reveal", "verdict", "settled", "winner", "0.981540", "agrees", "differs"),
        *("Leaderboard", "Validations", "Verdicts", "Receipts", "Settlement", "412\u202f338", "best model"),
    ):
        assert expected in text, expected
    plot = page.locator("svg.plot")
    assert plot.locator("circle.claim").count() == 4 and plot.locator("circle.given").count() == 12
    assert "best is 0.981540" in (plot.get_attribute("aria-label") or "")
    winner = page.locator("tr", has_text="winner")
    assert winner.locator("a", has_text=re.compile("^model$")).get_attribute("href") == (
        "http://gpu1.example.net/ipfs/model"
    )


def test_strings_of_strangers_stay_text(window: Window, shown: Shown) -> None:
    for name in ("hostile", "orders", "nodes", "order"):
        page = window.open(where(shown, name))
        assert page.title() != "owned"
        assert page.locator("main img, main script, main iframe").count() == 0
        links = page.eval_on_selector_all("a", "nodes => nodes.map(node => node.href)")
        assert all(link.startswith(("http://", "https://")) for link in links)
    assert HOSTILE in window.open(where(shown, "hostile")).inner_text("main")
    assert window.errors == []


def test_nothing_inline_would_run_even_if_it_got_in(window: Window, shown: Shown) -> None:
    page = window.open()
    page.evaluate(
        """html => {
          const holder = document.createElement("div");
          holder.innerHTML = html;
          document.body.append(holder);
          const script = document.createElement("script");
          script.textContent = "document.title = 'owned'";
          document.body.append(script);
        }""",
        HOSTILE,
    )
    page.wait_for_timeout(200)
    assert page.title() != "owned"
    assert any("Content Security Policy" in error for error in window.errors)


def test_an_order_that_appears_and_moves_on_shows_without_a_reload(window: Window, shown: Shown) -> None:
    page = window.open()
    page.evaluate("window.here = true")
    oid = shown.stage.do(shown.stage.net.place(train_window=7200))
    row = page.locator("tr", has=page.locator(f'a[title="0x{oid.hex()}"]'))
    row.wait_for(timeout=WAIT_MS)
    assert "training" in row.inner_text() and "left" in row.inner_text()
    row.locator("a").first.click()
    page.get_by_role("heading", level=1, name=re.compile("^Order 0x")).wait_for(timeout=WAIT_MS)
    page.locator("main .lead .phase", has_text="training").wait_for(timeout=WAIT_MS)
    shown.stage.do(shown.stage.net.send("client", Cancel, oid=oid))
    page.locator("main .lead .phase", has_text="sealed").wait_for(timeout=WAIT_MS)
    page.wait_for_function("document.getElementById('said').textContent.includes('sealed')", timeout=WAIT_MS)
    assert page.evaluate("window.here") is True, "the page was never loaded again"
    assert window.errors == []


def test_the_page_goes_on_by_polling_where_streams_are_cut(window: Window, shown: Shown) -> None:
    window.page.route("**/v1/events", lambda route: route.abort())
    page = window.open()
    page.wait_for_function("document.getElementById('pulse').dataset.state === 'polling'", timeout=WAIT_MS)
    oid = shown.stage.do(shown.stage.net.place(train_window=7200))
    page.locator(f'a[title="0x{oid.hex()}"]').wait_for(timeout=WAIT_MS)


@pytest.mark.parametrize("name", VIEWS)
def test_a_phone_never_scrolls_sideways(phone: Window, shown: Shown, name: str) -> None:
    page = phone.open(where(shown, name))
    phone.keep(f"phone-{name}")
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= page.evaluate("window.innerWidth")


@pytest.mark.parametrize("name", ["orders", "order", "committee", "account"])
def test_dark_colours_are_others_and_readable(window: Window, dark: Window, shown: Shown, name: str) -> None:
    colours = []
    for one in (window, dark):
        page = one.open(where(shown, name))
        colours.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    dark.keep(f"dark-{name}")
    assert colours[0] != colours[1]
    for one in (window, dark):
        poor = one.page.evaluate(CONTRAST)
        assert poor == [], "text has a contrast of at least 4.5 to 1"


CONTRAST: Final = """() => {
  const parse = (text) => (text.match(/[\\d.]+/g) ?? []).map(Number);
  const light = ([r, g, b]) => [r, g, b]
    .map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (node) => {
    for (; node; node = node.parentElement) {
      const [r, g, b, a = 1] = parse(getComputedStyle(node).backgroundColor);
      if (a === 1) return [r, g, b];
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const node of document.querySelectorAll("body *")) {
    const own = [...node.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
    if (!own || !node.checkVisibility() || node.closest("svg, option, noscript, .quiet")) continue;
    const [a, b] = [light(parse(getComputedStyle(node).color)), light(ground(node))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) found.push(`${node.tagName}.${node.className} ${ratio.toFixed(2)}`);
  }
  return [...new Set(found)];
}"""


def test_the_keyboard_reaches_everything_in_reading_order(window: Window, shown: Shown) -> None:
    page = window.open(where(shown, "order"))
    expected = page.evaluate(
        "[...document.querySelectorAll('a, button, input, select, summary')]"
        ".filter(node => node.checkVisibility()).length"
    )
    page.evaluate("document.body.focus()")
    reached = []
    for _ in range(expected + 2):
        page.keyboard.press("Tab")
        place = page.evaluate(
            "[...document.querySelectorAll('a, button, input, select, summary')]"
            ".indexOf(document.activeElement)"
        )
        if place in reached or place < 0:
            break
        reached.append(place)
    assert reached == sorted(reached) and len(reached) == expected


def test_an_account_is_asked_for_by_keyboard_and_explained(window: Window, shown: Shown) -> None:
    page = window.open(where(shown, "ask"))
    page.get_by_label("Address").fill("not an address")
    page.keyboard.press("Enter")
    page.get_by_role("alert").wait_for(timeout=WAIT_MS)
    page.get_by_label("Address").fill(ACCOUNT)
    page.keyboard.press("Enter")
    page.get_by_text("best model").first.wait_for(timeout=WAIT_MS)
    text = page.inner_text("main")
    assert "Earned" in text and "provider" in text and "epoch 1" in text
    assert window.errors == []


def test_nodes_and_accounts_show_who_kept_its_word_as_our_own_record_counts_it(
    window: Window, shown: Shown
) -> None:
    api = shown.stage.url
    settled = httpx.get(f"{api}/v1/orders", params={"phase": "settled"}).json()["orders"]
    history = [past_of(httpx.get(f"{api}/v1/orders/{order['oid']}").json()) for order in settled]

    def told(address: str) -> str:
        record = record_of(history, address)
        return f"{record.kept} of {record.kept + record.broken}" if record.kept + record.broken else "–"

    page = window.open(where(shown, "nodes"))
    column = page.locator("thead th").all_inner_texts().index("Kept")
    rows = {}
    for row in page.locator("tbody tr").all():
        cells = row.locator("td, th").all()
        href = cells[0].locator("a").get_attribute("href") or ""
        rows[href.rpartition("/")[2], cells[1].inner_text()] = cells[column].inner_text()
    judged = {address: cell for (address, role), cell in rows.items() if role != "aggregator"}
    assert judged == {address: told(address) for address in judged}
    wrong, silent = "0x" + who("validator2").hex(), "0x" + who("verifier3").hex()
    assert judged[wrong] == "3 of 4" and judged[silent] == "–", "one of its scores was overturned"
    page = window.open(f"#/accounts/{wrong}")
    assert page.locator("dl.figures div", has_text="Kept").locator("dd").inner_text() == "3 of 4"
    assert window.errors == []


def test_a_view_that_is_not_there_says_so(window: Window, shown: Shown) -> None:
    page = window.open("#/orders/0x" + "00" * 32)
    page.get_by_role("heading", level=1, name="Not available").wait_for(timeout=WAIT_MS)
    assert "no order" in page.inner_text("main")
    window.open("#/nowhere", "Not available")


def test_focus_and_scrolling_survive_an_update(window: Window, shown: Shown) -> None:
    page = window.open(where(shown, "order"))
    link = page.locator("main a", has_text="task document").or_(page.locator("main section a").last).last
    link.focus()
    before = page.evaluate("[document.activeElement.textContent, window.scrollY]")
    shown.stage.do(shown.stage.net.place(train_window=7200))
    page.wait_for_timeout(600)
    assert page.evaluate("[document.activeElement.textContent, window.scrollY]") == before
