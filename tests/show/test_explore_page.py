"""The explorer in a real browser: search, reasons, a new drug, export; narrow, wide, keys only."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from contrasts import contrasts

import clinical_drug_discovery as cdd

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

EVIL = "<script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"
pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def explorer(model_dir: Path) -> Iterator[cdd.Explorer]:
    with cdd.explore(model_dir, browser=False) as served:
        yield served


@pytest.fixture
def page(
    browser: Browser, explorer: cdd.Explorer, request: pytest.FixtureRequest
) -> Iterator[Page]:
    """An open page. In the end, all its requests went to its own server, without an error."""
    given: tuple[int, Any] = getattr(request, "param", (1400, "light"))
    width, scheme = given
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, accept_downloads=True
    )
    asked: list[str] = []
    wrong: list[str] = []
    context.on("request", lambda one: asked.append(one.url))
    opened = context.new_page()
    opened.set_default_timeout(60_000)  # of a busy machine
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("console", lambda one: wrong.append(one.text) if one.type == "error" else None)
    opened.goto(explorer.address)
    opened.get_by_role("heading", level=1).wait_for()
    yield opened
    pale = contrasts(opened)
    sideways = opened.evaluate("document.documentElement.scrollWidth - innerWidth")
    context.close()
    assert len(asked) > 10
    assert [url for url in asked if not url.startswith(explorer.address)] == []
    assert wrong == []
    assert pale == []
    assert sideways <= 0, "the page is wider than the screen"


def search(page: Page, text: str, name: str, label: str = "Search") -> None:
    page.get_by_role("combobox", name=label).fill(text)
    page.get_by_role("option").filter(has_text=name).first.click()


def shown(found: Locator) -> Locator:
    found.first.wait_for()
    return found


both_widths = pytest.mark.parametrize(
    "page", [(390, "light"), (1400, "dark")], indirect=True, ids=["narrow", "wide"]
)


@both_widths
def test_search_then_a_drug_then_its_evidence(page: Page, model: cdd.Model) -> None:
    search(page, "DISEASE parkinson", "Parkinson disease")
    page.get_by_role("heading", name="Parkinson disease", level=1).wait_for()
    names = shown(page.locator("table.ranks tbody th a")).all_text_contents()
    expected = model.rank("Parkinson disease", 25)
    assert names == expected["drug_name"].to_list()
    page.get_by_role("link", name="Haloperidol", exact=True).click()
    reasons = page.get_by_role("region", name="Reasons")
    reasons.get_by_text("Haloperidol is contraindicated in Parkinson disease").wait_for()
    for path in model.explain("Haloperidol", "Parkinson disease")["text"]:
        assert path in reasons.inner_text().replace("\n", " ")
    nodes = shown(reasons.locator(".network [role=button]"))
    before = nodes.count()
    nodes.filter(has_text="DRD2").click()
    page.get_by_role("button", name="Show its neighbors").click()
    page.wait_for_function(
        "count => document.querySelectorAll('.network [role=button]').length > count", arg=before
    )
    page.get_by_role("link", name="Open its page").click()
    page.get_by_role("heading", name="DRD2", level=1).wait_for()
    page.get_by_role("tab", name="Network").click()
    shown(page.locator(".network [role=button]"))


def test_a_suggestion_can_be_chosen_while_newer_ones_are_asked(page: Page) -> None:
    box = page.get_by_role("combobox", name="Search")
    box.fill("parkinson")
    option = shown(page.get_by_role("option").filter(has_text="Parkinson disease")).first
    page.route("**/api/search*", lambda route: None)  # the answer never comes
    box.press_sequentially(" dis")
    option.click()
    page.get_by_role("heading", name="Parkinson disease", level=1).wait_for()


@both_widths
def test_similar_nodes_and_the_map(page: Page, model: cdd.Model) -> None:
    search(page, "warf", "Warfarin")
    page.get_by_role("tab", name="Similar").click()
    names = shown(page.locator("table.ranks tbody th a")).all_text_contents()
    assert names == model.similar("Warfarin", 20)["node_name"].to_list()
    page.get_by_role("heading", name="Map of 195 drugs").wait_for()
    page.locator(".map-names .own").first.wait_for()
    painted = page.locator("canvas").evaluate(
        "one => one.getContext('2d').getImageData(0, 0, one.width, one.height).data"
        ".filter((value, i) => i % 4 === 3 && value > 0).length"
    )
    assert painted > 195  # each drug is a point of several pixels
    page.get_by_label("Nodes of type").select_option("disease")
    page.get_by_role("heading", name="Map of 115 diseases").wait_for()
    page.get_by_role("tab", name="Facts").click()
    page.get_by_role("link", name="VKORC1").wait_for()


@both_widths
def test_a_new_drug_with_an_evil_name_is_ranked(page: Page) -> None:
    page.get_by_role("link", name="New drug").click()
    page.get_by_label("Name", exact=True).fill(EVIL)
    page.get_by_role("button", name="Add and rank").click()
    page.get_by_role("alert").get_by_text("Add at least one fact").wait_for()
    for gene in ("DRD2", "HMGCR"):
        search(page, gene, gene, "The other node")
    page.get_by_role("button", name="Remove: binds HMGCR").click()
    search(page, "DRD3", "DRD3", "The other node")
    page.get_by_role("button", name="Add and rank").click()
    page.get_by_role("heading", name=EVIL, level=1).wait_for()
    shown(page.locator("table.ranks tbody th a")).first.click()
    page.get_by_role("region", name="Reasons").get_by_role("link", name=EVIL).first.wait_for()
    for tab in ("Facts", "Similar", "Network"):
        page.get_by_role("tab", name=tab).click()
        shown(page.locator({"Facts": ".chips a", "Similar": ".map-names .own"}.get(tab, ".node")))
    search(page, "<script>", EVIL)
    page.get_by_role("link", name="Back to the model as it was").click()
    page.get_by_role("heading", name="Explore the graph").wait_for()
    assert "taken" not in page.title()
    assert page.locator("main script, main img").count() == 0


def test_a_new_drug_has_a_page_before_its_ranks(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, on = threading.Event(), cdd.Model._on

    def slow(self: cdd.Model, extended: Any) -> cdd.Model:
        assert go.wait(120)
        return on(self, extended)

    monkeypatch.setattr(cdd.Model, "_on", slow)
    page.get_by_role("link", name="New drug").click()
    page.get_by_label("Name", exact=True).fill("Newstatin")
    search(page, "HMGCR", "HMGCR", "The other node")
    page.get_by_role("button", name="Add and rank").click()
    page.get_by_role("heading", name="Newstatin", level=1).wait_for()
    page.locator(".ranks-list .waiting").wait_for()
    page.get_by_role("tab", name="Facts").click()
    page.get_by_role("link", name="HMGCR").wait_for()
    page.get_by_text("The facts are in the order of the graph").wait_for()
    page.get_by_role("tab", name="Network").click()
    shown(page.locator(".network [role=button]"))
    search(page, "newst", "Newstatin")
    page.get_by_role("tab", name="Ranked diseases").click()
    page.locator(".ranks-list .waiting").wait_for()
    go.set()
    shown(page.locator("table.ranks tbody th a"))


def test_export(page: Page, model: cdd.Model) -> None:
    search(page, "asthma", "asthma")
    page.get_by_label("Known treatments too").check()
    page.get_by_text("195 drugs are ranked").wait_for()
    with page.expect_download() as download:
        page.get_by_role("link", name="CSV").click()
    found = pl.read_csv(download.value.path(), schema_overrides={"disease_id": pl.String})
    expected = model.rank("asthma", 1000, include_known=True)
    assert found["drug_name"].to_list() == expected["drug_name"].to_list()
    assert found.columns == expected.columns
    with page.expect_download() as download:
        page.get_by_role("button", name="Report").click()
    assert download.value.suggested_filename == "asthma - ranked drugs.html"
    text = Path(download.value.path()).read_text()
    assert all(name in text for name in expected["drug_name"].to_list()[:20])


def focused(page: Page) -> Any:
    return page.evaluate(
        "(document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent)"
    )


def test_keys_alone(page: Page) -> None:
    press = page.keyboard.press
    press("Tab")
    assert focused(page) == "Skip to the content"
    press("Tab")
    press("Tab")
    page.keyboard.type("parkinson")
    field = page.get_by_role("combobox", name="Search")
    press("ArrowDown")  # before the suggestions have come
    page.wait_for_function("() => document.activeElement.hasAttribute('aria-activedescendant')")
    active = field.get_attribute("aria-activedescendant")
    assert "Parkinson disease" in page.locator(f"#{active}[aria-selected=true]").inner_text()
    press("Enter")
    page.wait_for_function("() => document.activeElement.tagName === 'H1'")
    assert focused(page) == "Parkinson disease"
    assert page.title().startswith("Parkinson disease")
    press("Tab")  # the identifier
    press("Tab")
    assert focused(page) == "Ranked drugs"
    press("ArrowRight")
    assert focused(page) == "Facts"
    page.get_by_role("heading", name=re.compile("is treated by")).wait_for()
    press("End")
    assert focused(page) == "Network"
    shown(page.locator(".network [role=button]"))
    press("Tab")
    assert focused(page).startswith("Parkinson disease, disease. ")
    press("ArrowRight")
    press("Enter")
    assert not focused(page).startswith("Parkinson disease")
    press("Tab")
    assert focused(page) == "Show its neighbors"
    press("Enter")
    said = "document.getElementById('live').textContent"
    page.wait_for_function(f"() => / neighbors? of .* added|All neighbors of /.test({said})")
    assert focused(page) in {"Show its neighbors", "All neighbors are there"}


def test_a_wrong_token_shows_nothing(browser: Browser, explorer: cdd.Explorer) -> None:
    context = browser.new_context()
    page = context.new_page()
    for wrong in ("", "wrong/", "wrong/api/home"):
        response = page.goto(f"http://127.0.0.1:{explorer.port}/{wrong}")
        assert response is not None
        assert response.status == 403
    context.close()
