"""Take the pictures of the pages "Explore a model in the browser" and "Write a report".

    make pictures PICTURES=docs/guide

A small model of the sample graph is trained and shown in Chromium, which must be installed.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import clinical_drug_discovery as cdd
from clinical_drug_discovery.show.explore.serve import explore

if TYPE_CHECKING:
    from playwright.sync_api import Page

_BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def main(output: Path) -> None:
    """Write the pictures of the explorer and of a report into a directory."""
    from playwright.sync_api import sync_playwright

    program = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if program is None:
        sys.exit(f"make pictures needs one of {', '.join(_BROWSERS)}")
    edges = Path(cdd.__file__).parent / "data" / "sample_kg.csv"
    with tempfile.TemporaryDirectory() as directory:
        table = Path(directory) / "embeddings.parquet"
        made = cdd.generate_gnn_embeddings(edges, table, 64, 64, num_epochs=60, cache=False)
        with explore(made["model_dir"], browser=False) as served, sync_playwright() as play:
            # Chromium cannot use its sandbox as root, the usual user of containers.
            browser = play.chromium.launch(executable_path=program, args=["--no-sandbox"])
            for width, height in ((1400, 1080), (390, 844)):
                page = browser.new_page(viewport={"width": width, "height": height})
                page.goto(served.address)
                page.get_by_role("combobox", name="Search").fill("parkinson")
                page.get_by_role("option").filter(has_text="Parkinson disease").click()
                if width < 1000:
                    page.locator("table.ranks").wait_for()
                    page.screenshot(path=output / "explore_narrow.png")
                else:
                    _take_wide(page, output)
            report = Path(directory) / "report.html"
            cdd.write_report(report, model_dir=made["model_dir"], disease="Parkinson disease")
            page = browser.new_page(viewport={"width": 1100, "height": 900})
            page.goto(report.as_uri())
            _take_report(page, output)
            browser.close()


def _take_wide(page: Page, output: Path) -> None:
    page.get_by_role("link", name="Haloperidol", exact=True).click()
    page.get_by_text("Haloperidol is contraindicated in").wait_for()
    page.locator(".network .node").first.wait_for()
    page.evaluate("window.scrollTo(0, 0)")
    page.screenshot(path=output / "explore.png")
    page.get_by_role("tab", name="Similar").click()
    page.locator(".map-names .own").first.wait_for()
    page.screenshot(path=output / "explore_map.png")


def _take_report(page: Page, output: Path) -> None:
    found = page.locator("#ranking").bounding_box() or {}
    clip = {"x": 0, "y": found["y"], "width": 1100, "height": 700}
    page.screenshot(path=output / "report_ranking.png", full_page=True, clip=clip)
    card = page.locator("article", has=page.get_by_role("heading", name="Haloperidol"))
    card.screenshot(path=output / "report_evidence.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
