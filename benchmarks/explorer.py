"""Measure how long the page of `cdd explore` takes for each click, in a real browser.

    python benchmarks/explorer.py MODEL_DIR --disease "type 2 diabetes mellitus" --drug Metformin

Chromium must be installed. For each click, the script prints what a person waits for: the wall
time until the page answers (a new page with its heading, or the part that was asked for), and until
the whole result is there. Beside them stand the CPU seconds of the server, which compare machines
better. If the model directory does not have log_sums.safetensors yet, all diseases are ranked
first.
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from playwright.sync_api import Locator, Page, sync_playwright

import clinical_drug_discovery as cdd

GENES = ("DRD2", "DRD3", "MAOB", "SLC6A3", "TH")
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")


class Step(NamedTuple):
    """A click."""

    name: str
    click: Callable[[], object]  #: ends when the page has answered
    result: Callable[[], object] = lambda: None  #: ends when the whole result is there


class Session:
    """A page and what a user does on it; each method ends when its answer is visible."""

    def __init__(self, page: Page, disease: str, drug: str) -> None:
        self.page, self.disease, self.drug = page, disease, drug

    def option(self, label: str, text: str, name: str) -> Locator:
        """Type a text, and return the suggestion with a name."""
        self.page.get_by_role("combobox", name=label).fill(text)
        exact = self.page.locator(".option-name").get_by_text(name, exact=True).first
        exact.wait_for()
        return exact

    def ranked(self) -> None:
        """Wait for a ranked list."""
        self.page.locator("table.ranks tbody th a").first.wait_for()

    def open_node(self, name: str) -> None:
        """Search for a node, and wait for its page."""
        self.option("Search", name, name).click()
        self.heading(name)

    def heading(self, name: str) -> None:
        """Wait for the page of a node."""
        self.page.get_by_role("heading", name=name, level=1).wait_for()

    def why(self) -> None:
        """Choose the first row of a ranked list."""
        self.page.locator("table.ranks tbody th a").first.click()
        self.page.locator(".reasons .network .node").first.wait_for()

    def toggle(self, label: str) -> None:
        """Change a choice above the list."""
        with self.page.expect_response(lambda answer: "/api/drugs" in answer.url):
            self.page.get_by_label(label).click()
        self.ranked()

    def tab(self, name: str, shown: str) -> None:
        """Open a tab, and wait for an element of it."""
        self.page.get_by_role("tab", name=name).click()
        self.page.locator(shown).first.wait_for()

    def map_is_there(self) -> None:
        """Wait for the map of similar nodes."""
        self.page.locator(".map-names .own").first.wait_for()

    def export(self, name: str) -> None:
        """Download a file."""
        button = self.page.get_by_role("link", name=name)
        with self.page.expect_download() as found:
            button.or_(self.page.get_by_role("button", name=name)).click()
        found.value.path()

    def fill_form(self) -> None:
        """Fill in the form of a new drug."""
        self.page.get_by_role("link", name="New drug").click()
        self.page.get_by_label("Name", exact=True).fill("Newdrug")
        for gene in GENES:
            self.option("The other node", gene, gene).click()

    def add(self) -> None:
        """Send the form, and wait for the page of the drug."""
        self.page.get_by_role("button", name="Add and rank").click()
        self.heading("Newdrug")

    def ask(self, question: str) -> None:
        """Ask the first model from the page, beside what the page shows."""
        self.page.evaluate("question => fetch('api/' + question).then(one => one.json())", question)

    def steps(self, other: int) -> list[Step]:
        """Return the steps in their order; `other` is the number of another disease."""
        text = self.disease[:8].lower()
        tab, ranks = self.tab, "table.ranks tbody th a"
        return [
            Step("suggestions while typing", lambda: self.option("Search", text, self.disease)),
            Step("open a disease", lambda: self.open_node(self.disease), self.ranked),
            Step("why: sentences and network", self.why),
            Step("known treatments too", lambda: self.toggle("Known treatments")),
            Step("without popularity", lambda: self.toggle("popularity")),
            Step("facts", lambda: tab("Facts", ".chips a")),
            Step("network", lambda: tab("Network", ".network .node")),
            Step("similar, then the map", lambda: tab("Similar", ranks), self.map_is_there),
            Step("ranked drugs again", lambda: tab("Ranked drugs", ranks)),
            Step("report", lambda: self.export("Report")),
            Step("Excel", lambda: self.export("Excel")),
            Step("CSV", lambda: self.export("CSV")),
            Step("open a drug", lambda: self.open_node(self.drug), self.ranked),
            Step("why, from the drug", self.why),
            Step("fill in the form of a new drug", self.fill_form),
            Step("add the new drug: its page", self.add),
            Step("meanwhile: its facts", lambda: tab("Facts", ".chips a")),
            Step("meanwhile: its network", lambda: tab("Network", ".network .node")),
            Step("meanwhile: suggestions", lambda: self.ask(f"search?text={text}")),
            Step("meanwhile: drugs for a disease", lambda: self.ask(f"drugs?node={other}")),
            Step("its ranked diseases", lambda: tab("Ranked diseases", ".waiting"), self.ranked),
            Step("a disease with the new drug", lambda: self.open_node(self.disease), self.ranked),
        ]


def wait_until_idle() -> None:
    """Wait until this process computes nothing for five seconds."""
    before = -1.0
    while time.process_time() - before > 0.1:
        before = time.process_time()
        time.sleep(5)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model_dir", type=Path)
    parser.add_argument("--disease", default="Parkinson disease")
    parser.add_argument("--drug", default="Levodopa")
    parser.add_argument("--pictures", type=Path, help="directory for a picture after each click")
    given = parser.parse_args()
    program = next(filter(None, map(shutil.which, _BROWSERS)))
    start, cpu = time.perf_counter(), time.process_time()

    def report(name: str, answered: float | None = None) -> None:
        nonlocal start, cpu
        used, wall = time.process_time() - cpu, time.perf_counter() - start
        first = f"{wall if answered is None else answered - start:7.2f} s {wall:7.2f} s"
        print(f"{first} {used:7.2f} CPU s  {name}", flush=True)
        start, cpu = time.perf_counter(), time.process_time()

    print("   answer    result   the server's")
    with cdd.explore(given.model_dir, browser=False) as served, sync_playwright() as play:
        report("load the model")
        browser = play.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.set_default_timeout(600_000)
        session = Session(page, given.disease, given.drug)
        report("start the browser")
        page.goto(served.address)
        page.get_by_role("heading", level=1).wait_for()
        report("first page")
        entry = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
        print(f"first contentful paint after {page.evaluate(entry):.0f} ms", flush=True)
        wait_until_idle()
        report("prepare lists of diseases and reports, after the page is there")
        home = page.evaluate("fetch('api/home').then(one => one.json())")
        other = home["diseases"][-1]["node"]
        for i, step in enumerate(session.steps(other)):
            if step.name.startswith("add"):
                added = time.perf_counter()
            step.click()
            answered = time.perf_counter()
            step.result()
            report(step.name, answered)
            if step.name.startswith("its ranked"):
                print(f"ranked diseases {start - added:.2f} s after the click", flush=True)
            if given.pictures:
                given.pictures.mkdir(parents=True, exist_ok=True)
                page.screenshot(path=given.pictures / f"{i:02d}.png")
                report("(picture)")
        browser.close()


if __name__ == "__main__":
    main()
