"""Put from the browser: a wallet that signs through a real chain, and contracts that take the order."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from eth_account import Account
from eth_utils.address import to_checksum_address
from playwright.sync_api import Browser, Page

from protocol.chain.client import ChainClient, order_tuple
from protocol.chain_events import OrderPlaced
from protocol.crypto import Key, keccak256
from protocol.parameters import TOKEN_WEI
from protocol.transactions import Order, order_id
from protocol.typed_data import Domain
from tests.chain import Chain, running_chain
from tests.page.conftest import WAIT_MS
from tests.page.stage import Stage

BUYER: Final = Key(keccak256(b"a buyer with a wallet"))
FUNDS: Final = 500 * TOKEN_WEI
PREPARED: Final = {
    "task_link": "http://127.0.0.1:1/ipfs/bafkreidg4ok",
    "task_hash": "0x" + keccak256(b"a task").hex(),
    "data_root": "0x" + keccak256(b"its data").hex(),
}
PROVIDER: Final = """window.ethereum = { request: async ({ method, params }) => {
  const { error, result } = await window.chain(method, params ?? []);
  if (error) throw Object.assign(new Error(error.message), error);
  return result;
} }"""
DECLINED: Final = {"code": 4001, "message": "the user declined"}
UNKNOWN: Final = {"code": 4200, "message": "the wallet does not know the method"}


@pytest.fixture(scope="module")
def chain(browser: Browser) -> Iterator[Chain]:
    """Anvil with the contracts, and tokens for the buyer."""
    with running_chain() as running:
        running.fund(BUYER, FUNDS)
        yield running


def domain_of(chain: Chain) -> Domain:
    """The network's domain."""
    return Domain(chain.book.chain_id, bytes.fromhex(chain.book.parameters[2:]))


@pytest.fixture(scope="module")
def stage(chain: Chain, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """An aggregator of this chain's network."""
    stage = Stage(tmp_path_factory.mktemp("put"), domain_of(chain), chain.book.orders)
    yield stage
    stage.close()


class Wallet:
    """What a wallet does for a page: it holds the account, shows what is asked, and asks its chain node."""

    def __init__(self, chain: Chain) -> None:
        self.chain = chain
        self.asked: list[str] = []
        self.errors: dict[str, dict[str, Any]] = {}
        """What it answers instead, by method."""
        self.signs: Callable[[dict[str, Any]], str] = signed_by_the_buyer
        chain.rpc("anvil_impersonateAccount", [to_checksum_address(BUYER.address)])

    def request(self, method: str, params: list[Any]) -> Any:
        """EIP-1193's one function."""
        self.asked.append(method)
        if method in self.errors:
            return {"error": self.errors[method]}
        if method == "eth_requestAccounts":
            return {"result": ["0x" + BUYER.address.hex()]}
        if method == "eth_signTypedData_v4":
            assert params[0] == "0x" + BUYER.address.hex()
            return {"result": self.signs(json.loads(params[1]))}
        answer = self.chain.web3.provider.make_request(method, params)  # type: ignore[arg-type]
        return json.loads(json.dumps(answer, default=dict))


def signed_by_the_buyer(document: dict[str, Any]) -> str:
    """What another implementation of EIP-712 than the page's and the contract's makes of it."""
    signature: bytes = Account.sign_typed_data(BUYER.secret, full_message=document).signature
    return "0x" + signature.hex()


@pytest.fixture
def wallet(chain: Chain) -> Wallet:
    """The buyer's wallet."""
    return Wallet(chain)


@pytest.fixture
def page(browser: Browser, wallet: Wallet) -> Iterator[Page]:
    """A page with the wallet in it."""
    context = browser.new_context(viewport={"width": 1280, "height": 1000}, color_scheme="light")
    page = context.new_page()
    page.expose_function("chain", wallet.request)
    page.add_init_script(PROVIDER)
    yield page
    context.close()


def fill(page: Page, stage: Stage, reward: str = "100") -> None:
    """Open the form and fill it in."""
    page.goto(f"{stage.url}/#/put")
    page.get_by_label("Prepared task").fill(json.dumps(PREPARED))
    page.get_by_label("Reward, tokens").fill(reward)
    page.get_by_label("Baseline score").fill("0.85")
    page.get_by_label("Training, seconds").fill("600")


def test_an_order_is_placed_and_shown_without_a_terminal(
    page: Page, stage: Stage, chain: Chain, wallet: Wallet
) -> None:
    buyer = ChainClient(chain.web3, chain.book, BUYER)
    before = buyer.balance_of(BUYER.address)
    fill(page, stage)
    page.get_by_role("button", name="Place the order").click()
    placed = page.get_by_text("Placed as 0x")
    placed.wait_for(timeout=WAIT_MS)
    page.screenshot(
        path=Path(__file__).parents[2] / "build" / "screenshots" / "put-placed.png", full_page=True
    )
    oid = bytes.fromhex(placed.inner_text().split("0x")[1][:64])
    client, amount, _ = buyer.escrow_of(oid)
    assert client == BUYER.address and amount == before - buyer.balance_of(BUYER.address) >= 100 * TOKEN_WEI
    assert wallet.asked.count("eth_sendTransaction") == 1, "the order, by permit"
    assert allowance(buyer) == 0, "exactly what the order needed was permitted"
    event = buyer.orders.events.OrderPlaced().get_logs(from_block=0)[-1]
    order = order_from(event["args"]["order"])
    assert order_id(domain_of(chain), order) == oid, "the id is the one that Python computes"
    assert (
        order.baseline == 850_000 and order.train_window == 600 and order.task_link == PREPARED["task_link"]
    )
    stage.net.chain.blocks.append([OrderPlaced(oid=oid, order=order, block_hash=keccak256(oid))])
    page.get_by_role("heading", level=1, name=re.compile("^Order 0x")).wait_for(timeout=WAIT_MS)
    page.locator("main .lead .phase", has_text="training").wait_for(timeout=WAIT_MS)


def allowance(buyer: ChainClient) -> int:
    """What the OrderBook may take of the buyer's tokens."""
    parties = (to_checksum_address(BUYER.address), buyer.book.orders)
    return int(buyer.token.functions.allowance(*parties).call())


def place(page: Page, stage: Stage) -> None:
    """Place an order of 10 tokens."""
    fill(page, stage, reward="10")
    page.get_by_role("button", name="Place the order").click()
    page.get_by_text("Placed as 0x").wait_for(timeout=WAIT_MS)


CHEATS: Final[dict[str, Callable[[dict[str, Any]], str]]] = {
    "nothing": lambda document: "0x",
    "zeros": lambda document: "0x" + bytes(65).hex(),
    "another amount": lambda document: signed_by_the_buyer(
        document | {"message": document["message"] | {"value": "1"}}
    ),
}


@pytest.mark.parametrize("how", ["unknown", *CHEATS])
def test_a_wallet_that_gives_no_permit_approves_instead(
    page: Page, stage: Stage, chain: Chain, wallet: Wallet, how: str
) -> None:
    if how == "unknown":
        wallet.errors["eth_signTypedData_v4"] = UNKNOWN
    else:
        wallet.signs = CHEATS[how]
    place(page, stage)
    assert wallet.asked.count("eth_sendTransaction") == 2, "approve, put, and nothing else"
    assert page.get_by_text("This wallet signs no permits").count() == 1
    assert allowance(ChainClient(chain.web3, chain.book, BUYER)) == 0


def test_parity_counted_from_zero_is_a_permit_too(
    page: Page, stage: Stage, chain: Chain, wallet: Wallet
) -> None:
    def from_zero(document: dict[str, Any]) -> str:
        signature = bytes.fromhex(signed_by_the_buyer(document)[2:])
        return "0x" + signature[:-1].hex() + f"{signature[-1] - 27:02x}"

    wallet.signs = from_zero
    place(page, stage)
    assert wallet.asked.count("eth_sendTransaction") == 1


def test_what_was_approved_before_needs_no_permit(
    page: Page, stage: Stage, chain: Chain, wallet: Wallet
) -> None:
    buyer = ChainClient(chain.web3, chain.book, BUYER)
    buyer.approve(chain.book.orders, 40 * TOKEN_WEI)
    place(page, stage)
    assert "eth_signTypedData_v4" not in wallet.asked and wallet.asked.count("eth_sendTransaction") == 1
    buyer.send(buyer.token.functions.approve(chain.book.orders, 0), "taking the rest back")


def order_from(fields: Any) -> Order:
    """The order in a decoded log."""
    return Order(
        client=bytes.fromhex(fields["client"][2:]),
        nonce=fields["nonce"],
        kind=fields["kind"],
        reward=fields["reward"],
        deposit=fields["deposit"],
        train_window=fields["trainWindow"],
        validate_window=fields["validateWindow"],
        challenge_window=fields["challengeWindow"],
        task_hash=bytes(fields["taskHash"]),
        task_link=fields["taskLink"],
        data_root=bytes(fields["dataRoot"]),
        baseline=fields["baseline"],
    )


def test_an_order_that_cannot_be_paid_costs_nothing(page: Page, stage: Stage, wallet: Wallet) -> None:
    fill(page, stage, reward="100000")
    page.get_by_role("button", name="Place the order").click()
    page.get_by_text("nothing was spent").wait_for(timeout=WAIT_MS)
    assert "eth_sendTransaction" not in wallet.asked


def test_an_order_book_of_another_network_is_not_paid(
    page: Page, browser: Browser, chain: Chain, wallet: Wallet, tmp_path: Path
) -> None:
    """A lying aggregator names a contract of its own."""
    liar = Stage(tmp_path, Domain(chain.book.chain_id, b"\x66" * 20), chain.book.orders)
    try:
        fill(page, liar)
        page.get_by_role("button", name="Place the order").click()
        page.get_by_text("no OrderBook of this network").wait_for(timeout=WAIT_MS)
        assert "eth_sendTransaction" not in wallet.asked
    finally:
        liar.close()


@pytest.mark.parametrize("method", ["eth_signTypedData_v4", "eth_sendTransaction", "eth_requestAccounts"])
def test_who_declines_in_the_wallet_has_spent_nothing(
    page: Page, stage: Stage, wallet: Wallet, method: str
) -> None:
    wallet.errors[method] = DECLINED
    fill(page, stage, reward="10")
    page.get_by_role("button", name="Place the order").click()
    page.get_by_text("You declined in the wallet; nothing more was done.").wait_for(timeout=WAIT_MS)
    assert wallet.asked[-1] == method


def test_a_refusal_of_the_contract_is_said_in_words_before_anything_is_sent(
    page: Page, stage: Stage, wallet: Wallet
) -> None:
    fill(page, stage, reward="10")
    page.get_by_label("Training, seconds").fill("999999999")
    page.get_by_role("button", name="Place the order").click()
    page.get_by_text("The contract refuses: a window is out of bounds.").wait_for(timeout=WAIT_MS)
    assert "eth_sendTransaction" not in wallet.asked


@pytest.mark.parametrize(
    ("label", "text", "said"),
    [
        ("Prepared task", "{}", "lacks"),
        ("Prepared task", "[", "not the JSON"),
        ("Reward, tokens", "0.0000000000000000001", "amount of tokens"),
        ("Baseline score", "high", "a score"),
        ("Training, seconds", "1.5", "whole seconds"),
    ],
)
def test_what_cannot_be_an_order_is_said_before_the_wallet_is_asked(
    page: Page, stage: Stage, wallet: Wallet, label: str, text: str, said: str
) -> None:
    fill(page, stage)
    page.get_by_label(label).fill(text)
    page.get_by_role("button", name="Place the order").click()
    page.get_by_text(said).wait_for(timeout=WAIT_MS)
    assert wallet.asked == []


def test_calls_are_encoded_as_python_encodes_them(page: Page, stage: Stage, chain: Chain) -> None:
    client = ChainClient(chain.web3, chain.book, BUYER)
    names = [
        part["name"] for part in client.orders.get_function_by_name("put").abi["inputs"][0]["components"]
    ]
    page.goto(f"{stage.url}/#/put")
    for kind, link, baseline in itertools.product(
        ("open", "x" * 31, "ünï"), ("", "http://a/" + "é" * 40, "x" * 64), (-(2**63), -1, 0, 2**63 - 1)
    ):
        order = Order(
            client=BUYER.address,
            nonce=2**64 - 1,
            kind=kind,
            reward=2**96 - 1,
            deposit=10**19,
            train_window=2**32 - 1,
            validate_window=7,
            challenge_window=8,
            task_hash=keccak256(b"1"),
            task_link=link,
            data_root=keccak256(b"2"),
            baseline=baseline,
        )
        fields = {
            name: "0x" + value.hex() if isinstance(value, bytes) else str(value)
            for name, value in zip(names, order_tuple(order), strict=True)
        }
        amount = order.reward + order.deposit
        permit = {
            "deadline": "7",
            "v": 28,
            "r": "0x" + keccak256(b"r").hex(),
            "s": "0x" + keccak256(b"s").hex(),
        }
        put, approve, by_permit = page.evaluate(
            """async ([order, spender, amount, permit]) => {
              const abi = await import("/page/abi.js");
              const approve = abi.approveCall(spender, amount);
              return [abi.putCall(order), approve, abi.putWithPermitCall(order, permit)];
            }""",
            [fields, chain.book.orders, str(amount), permit],
        )
        signed = (7, 28, keccak256(b"r"), keccak256(b"s"))
        assert by_permit == client.orders.encode_abi("putWithPermit", [order_tuple(order), *signed])
        assert put == client.orders.encode_abi("put", [order_tuple(order)])
        assert approve == client.token.encode_abi("approve", [chain.book.orders, amount])
