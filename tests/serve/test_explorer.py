"""The explorer in a real browser, on a server that really runs."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nlakit.models.nla import NLA
from nlakit.serve.engine import Engine
from tests.serve.conftest import listening
from tests.serve.explored import application, beside, toy_pair

TEXT = "A whale <b>rises</b>\nnear mark 7."
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next((found for name in BROWSERS if (found := shutil.which(name))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def nla(toy_subject: Any) -> NLA:
    return toy_pair(toy_subject("llama"))


@pytest.fixture
def engine(nla: NLA) -> Iterator[Engine]:
    made = Engine(nla)
    yield made
    made.close()


@pytest.fixture
def address(nla: NLA, engine: Engine, tmp_path: Path) -> Iterator[str]:
    with listening(application({"toy": engine}, beside(tmp_path / "pair", nla))) as found:
        yield found


class Visitor:
    """A page that remembers what went wrong on it, and whom it asked."""

    def __init__(self, chromium: Any, address: str, **about: Any) -> None:
        self.context = chromium.new_context(**about)
        self.page = self.context.new_page()
        self.wrong: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda one: one.type == "error" and self.wrong.append(one.text))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("dialog", lambda one: self.wrong.append(f"dialog {one.message}"))
        self.page.on("request", lambda one: self.asked.append(one.url))
        self.address = address
        self.page.goto(f"{address}/explore")

    def read(self, text: str = TEXT) -> None:
        self.page.fill("#pane-a textarea[name=typed]", text)
        self.page.click("#pane-a .go")
        self.page.wait_for_selector("#chip-a-3")

    def explain(self, at: int, side: str = "a") -> str:
        """Click a token; its finished explanation."""
        self.page.click(f"#chip-{side}-{at}")
        detail = f"#detail-{side} .detail:has(h2:text-matches('^Token {at},')):has(.scores)"
        self.page.wait_for_selector(detail)
        self.page.wait_for_selector(f"{detail} .guesses")
        return self.page.inner_text(f"{detail} .explanation")

    def link(self) -> str:
        """The address, when it holds what is on the page."""
        self.page.wait_for_timeout(400)
        return self.page.evaluate("location.href")

    def check(self) -> None:
        """Nothing went wrong, and nobody else was asked for anything."""
        assert self.wrong == []
        assert all(url.startswith((self.address, "blob:", "data:")) for url in self.asked)

    def faults(self) -> list[str]:
        """Serious violations that axe-core finds."""
        from axe_playwright_python.sync_playwright import Axe

        found = Axe().run(self.page).response["violations"]
        return [f"{one['id']}: {one['nodes'][0]['html']}" for one in found
                if one["impact"] in ("serious", "critical")]  # fmt: skip


@pytest.fixture
def visit(chromium: Any, address: str) -> Iterator[Any]:
    visitors: list[Visitor] = []

    def begin(**about: Any) -> Visitor:
        visitors.append(Visitor(chromium, address, **about))
        return visitors[-1]

    yield begin
    for one in visitors:
        one.check()
        one.context.close()


def test_from_a_text_to_a_link(visit: Any, nla: NLA, tmp_path: Path) -> None:
    visitor = visit()
    page = visitor.page
    visitor.read()
    assert page.locator("#pane-a .chips .chip").count() == len(nla.activations(TEXT)[0])
    assert page.locator("#pane-a .chips b").count() == 0
    (alone,) = nla.explain(TEXT, [3])
    assert visitor.explain(3).split() == alone.explanation.split()
    assert re.search("level-", page.get_attribute("#chip-a-3", "class"))
    assert page.get_attribute("#chip-a-3", "aria-current") == "true"
    page.wait_for_selector(".near")
    page.click("text=Change the words")
    page.fill("textarea[name=edited]", "Something else <i>entirely</i>.")
    page.wait_for_selector("tr.after")
    page.click("button:text-is('Steer')")
    page.wait_for_selector(".steering")
    with page.expect_download() as download:
        page.click("button:text-is('JSON')")
    saved = json.loads(Path(download.value.path()).read_text(encoding="utf-8"))
    assert saved["text"] == TEXT
    assert saved["rows"][0]["explanation"] == alone.explanation
    link = visitor.link()

    other = visit()
    other.page.goto(link)
    other.page.reload()
    other.page.wait_for_selector("tr.after")
    assert other.page.input_value("textarea[name=typed]") == TEXT
    assert other.page.input_value("textarea[name=edited]") == "Something else <i>entirely</i>."
    assert other.page.get_attribute("#chip-a-3", "aria-current") == "true"
    assert other.link() == link


def test_all_tokens_and_two_side_by_side(visit: Any) -> None:
    visitor = visit()
    page = visitor.page
    visitor.read("A whale.")
    page.click("text=Explain all")
    page.wait_for_selector("text=9 of 9 tokens explained")
    assert page.locator("#pane-a .chips .chip:not([class*=level])").count() == 0
    visitor.explain(3)
    page.click("text=Compare side by side")
    page.wait_for_selector("#chip-b-3")
    visitor.explain(5, "b")
    page.wait_for_selector("#relation table")
    link = visitor.link()
    other = visit()
    other.page.goto(link)
    other.page.reload()
    other.page.wait_for_selector("#relation table")
    assert other.faults() == []
    page.click("text=Close the second")
    assert page.locator("#pane-b").count() == 0
    assert len(visitor.link()) < len(link)


def test_a_conversation_and_its_words(visit: Any) -> None:
    visitor = visit()
    page = visitor.page
    page.click("button:text-is('A conversation')")
    page.wait_for_selector(".voice:text-is('assistant')")
    assert page.input_value("select[name=kind]") == "conversation"
    spoken = int(re.findall(r"\d+", page.inner_text("text=Explain what is spoken"))[0])
    assert 0 < spoken < page.locator("#pane-a .chips .chip").count()
    page.fill("input[name=top]", "3")
    page.select_option("select[name=by]", "entropy")
    page.click("text=Explain the top")
    page.wait_for_selector("text=3 of")
    assert page.locator("#pane-a .chips .chip[class*=level]").count() == 3
    assert visitor.faults() == []
    link = visitor.link()
    other = visit()
    other.page.goto(link)
    other.page.reload()
    other.page.wait_for_selector(".voice:text-is('assistant')")
    assert other.page.locator("#pane-a .chips .chip[class*=level]").count() == 3


def test_stop_ends_the_work(visit: Any, slowly: Any) -> None:
    slowly(0.05)  # as a real model is
    visitor = visit()
    page = visitor.page
    visitor.read(TEXT * 8)
    page.click("text=Explain all")
    page.wait_for_selector(".many progress[value]:not([value='0'])")
    page.click(".many button:text-is('Stop')")
    page.wait_for_selector("text=Stopped.")
    assert page.locator("progress").count() == 0
    told = page.locator("#pane-a .chips .chip[class*=level]").count()
    assert 0 < told < page.locator("#pane-a .chips .chip").count()


def test_keys_are_enough(visit: Any) -> None:
    visitor = visit()
    page = visitor.page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "To the text"
    page.focus("textarea[name=typed]")
    page.keyboard.insert_text("A whale.\nA river.")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_selector("#chip-a-0[tabindex='0']")
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "chip-a-0":
            break
    focused = []
    for key in ("ArrowRight", "ArrowRight", "ArrowDown", "ArrowUp", "End", "Home", "ArrowLeft"):
        page.keyboard.press(key)
        focused.append(page.evaluate("Number(document.activeElement.value)"))
    assert focused[:2] == [1, 2] and 10 <= focused[2] <= 13 and focused[3] < 10
    assert focused[4:] == [17, 0, 0]
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.wait_for_selector("#detail-a .scores")
    assert page.evaluate("document.activeElement.id") == "chip-a-1"  # though it was replaced
    assert page.get_attribute("#chip-a-1", "tabindex") == "0"
    assert page.locator(".chips .chip[tabindex='0']").count() == 1
    assert "Token 1" in page.inner_text("#status")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_phone_and_schemes_are_readable(visit: Any, scheme: str) -> None:
    visitor = visit(viewport={"width": 375, "height": 700}, color_scheme=scheme)
    visitor.read()
    visitor.page.click("text=Explain all")
    visitor.page.wait_for_selector("text=tokens explained.")
    visitor.explain(3)
    visitor.page.click("text=Change the words")
    visitor.page.fill("textarea[name=edited]", "Else.")
    visitor.page.wait_for_selector("tr.after")
    assert visitor.page.evaluate("document.documentElement.scrollWidth") <= 375
    assert visitor.faults() == []


def test_a_mistake_is_said_on_the_page(visit: Any) -> None:
    visitor = visit()
    visitor.read()
    visitor.page.fill("textarea[name=typed]", "  ")
    visitor.page.click(".go")
    visitor.page.wait_for_selector("#problem:has-text('the text is empty')")
    assert visitor.page.locator("#chip-a-3").count() == 1  # what was there stays
    visitor.read("A whale.")
    assert visitor.page.inner_text("#problem") == ""
    visitor.wrong = [one for one in visitor.wrong if "400 (Bad Request)" not in one]
