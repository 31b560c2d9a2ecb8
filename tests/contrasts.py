"""Contrasts of the texts of a page in a browser."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Page


def contrasts(page: Page) -> list[str]:
    """Return texts of the page with a contrast below 4.5, the least of WCAG AA."""
    found: list[str] = page.evaluate(
        """() => {
        const parts = (text) => text.match(/[\\d.]+/g).map(Number);
        const light = (rgb) => {
            const [r, g, b] = rgb.slice(0, 3).map((v) => v / 255)
                .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
        };
        const behind = (node) => {
            for (; node; node = node.parentElement) {
                const color = parts(getComputedStyle(node).backgroundColor);
                if (color.length < 4 || color[3] > 0) return color;
            }
            return [255, 255, 255];
        };
        const bad = [];
        for (const node of document.querySelectorAll("main *, header *")) {
            if (node.closest("svg") || ![...node.childNodes].some(
                (one) => one.nodeType === 3 && one.data.trim())) continue;
            const [a, b] = [parts(getComputedStyle(node).color), behind(node)].map(light)
                .sort((x, y) => y - x);
            if ((a + 0.05) / (b + 0.05) < 4.5) bad.push(node.outerHTML.slice(0, 80));
        }
        return bad;
        }"""
    )
    return found
