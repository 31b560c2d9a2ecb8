"""Pictures: what they show is what they got, labels do not overlap, names stay text."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import clinical_drug_discovery as cdd
from clinical_drug_discovery import plot
from clinical_drug_discovery.show.plot import style
from clinical_drug_discovery.show.plot.network_svg import evidence_svg
from clinical_drug_discovery.system.errors import InputError

if TYPE_CHECKING:
    from playwright.sync_api import Browser

SVG = "{http://www.w3.org/2000/svg}"
EVIL = "<script>document.title='taken'</script> $x^2$ #000000"
INTERVALS = {"recall@50": 0.6, "recall@50_low": 0.5, "recall@50_high": 0.7, "hits@10": 0.25}
STRATUM = {"num_pairs": 4, "recall@50": 0.6, "recall@50_low": 0.5, "recall@50_high": 0.7}
REPORT: dict[str, Any] = {
    "reliability": [
        {"predicted": 0.05, "recorded": 0.04, "num_pairs": 900},
        {"predicted": 0.5, "recorded": 0.7, "num_pairs": 20},
    ],
    "rankers": {"ranker": INTERVALS, "walk": INTERVALS},
    "strata": {
        "ranker": {"diseases_of_drug": {"0": STRATUM, "1": {"num_pairs": 0}}},
        "walk": {"diseases_of_drug": {"0": STRATUM, "1": {"num_pairs": 0}}},
    },
}
HISTORY = {"epoch": [1, 2, 3], "loss": [3.0, 2.0, 1.0], "vote_loss": [2.0, None, 1.0]}
PICTURES: dict[str, Any] = {
    "reliability": lambda **ax: plot.reliability(REPORT, **ax),
    "recall": lambda **ax: plot.recall(REPORT, **ax),
    "strata": lambda **ax: plot.strata(REPORT, **ax),
    "history": lambda **ax: plot.history(HISTORY, **ax),
    "evidence": lambda **ax: plot.evidence(path_of("A", "B", "C"), **ax),
}


def path_of(*names: str, kind: str = "mechanism", effect: float | None = 1.0) -> list[Any]:
    types = ["drug", *["gene/protein"] * (len(names) - 2), "disease"]
    nodes = [
        {"node_index": i, "node_name": name, "node_type": type}
        for i, (name, type) in enumerate(zip(names, types, strict=True))
    ]
    relations = ["drug_protein"] * (len(names) - 1)
    return [
        {"kind": kind, "text": " ".join(names), "nodes": nodes, "relations": relations,
         "effect": effect}
    ]  # fmt: skip


def texts_of(figure: Figure) -> list[Any]:
    return [text for ax in figure.axes for text in ax.texts if text.get_text()]


def overlapping(figure: Figure) -> list[tuple[str, str]]:
    figure.draw_without_rendering()
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts_of(figure)]
    return [(a, b) for (a, x), (b, y) in itertools.combinations(boxes, 2) if x.overlaps(y)]


def test_labels_of_evidence_do_not_overlap_and_lie_inside(model: cdd.Model) -> None:
    pairs = [
        (drug, disease)
        for disease in ("asthma", "generalized anxiety disorder", "rheumatoid arthritis")
        for drug in model.rank(disease, top=6, include_known=True)["drug_name"]
    ]
    sizes = set()
    for drug, disease in pairs:
        found = model.explain(drug, disease)
        if not found.height:
            continue
        figure = plot.evidence(found)
        sizes.add(found.height)
        assert overlapping(figure) == [], (drug, disease)
        for text in texts_of(figure):
            box = text.get_window_extent()
            assert figure.bbox.x0 <= box.x0
            assert box.x1 <= figure.bbox.x1
            assert box.y1 <= figure.bbox.y1
        written = " ".join(text.get_text().replace("\n", " ") for text in texts_of(figure))
        assert drug in written
        assert disease in written
    assert len(sizes) > 1


def test_width_of_a_line_grows_with_the_effect_and_harm_is_red() -> None:
    rows = path_of("A", "B", "C", effect=0.5)
    rows += path_of("A", "D", "E", "C", kind="similar drug", effect=4.0)
    rows[1]["nodes"][1]["node_index"] = 7
    stated = {**path_of("A", "C", kind="stated", effect=None)[0]}
    stated |= {"text": "A is contraindicated in C", "relations": ["contraindication"]}
    axes = plot.evidence([*rows, stated]).axes[0]
    lines = {patch.get_edgecolor()[:3]: patch.get_linewidth() for patch in axes.patches}
    widths = {color: lines[rgb_of(color)] for color in (style.BLUE, style.GREEN)}
    assert widths[style.GREEN] > widths[style.BLUE]
    (words,) = (text for text in axes.texts if text.get_text() == "contraindicated in")
    assert words.get_color() == style.VERMILION


def rgb_of(color: str) -> tuple[float, float, float]:
    red, green, blue = (int(color[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return red, green, blue


def test_paths_that_begin_alike_share_their_nodes() -> None:
    rows = path_of("A", "B", "C") + path_of("A", "B", "D", "C", kind="similar drug")
    rows[1]["nodes"][2] |= {"node_index": 8, "node_type": "drug"}
    written = [text.get_text() for text in texts_of(plot.evidence(rows))]
    assert written.count("B") == 1
    assert written.count("D") == 1


def stated_in_many_ways() -> list[Any]:
    """Rows with a contraindication, all kinds of paths, shared nodes and long names."""
    rows = path_of("Drug with a name of many words", "Gene <1>", "A & B disease", effect=0.5)
    rows += path_of(
        "Drug", "Gene <1>", "Another drug with a long name", "A & B", kind="similar drug"
    )
    rows += path_of("Drug", "Other", "A & B", kind="related disease", effect=4.0)
    rows[1]["nodes"][2] |= {"node_index": 8, "node_type": "drug"}
    rows[2]["nodes"][1] |= {"node_index": 9, "node_type": "disease"}
    stated = path_of("Drug", "A & B", kind="stated", effect=None)[0]
    return [*rows, stated | {"text": "It is contraindicated", "relations": ["contraindication"]}]


def test_a_page_gets_the_picture_that_matplotlib_draws(model: cdd.Model) -> None:
    explained = [model.explain(drug, "asthma") for drug in model.rank("asthma")["drug_name"]]
    for rows in (stated_in_many_ways(), *(found for found in explained if found.height)):
        figure = plot.evidence(rows)
        axes = figure.axes[0]
        drawn = axes.patches
        written = ET.fromstring(evidence_svg(rows, title="A & B"))
        other = ET.fromstring(plot.svg(figure, title="A & B"))
        assert written.attrib.keys() == other.attrib.keys()
        sizes = [float(size) for size in written.attrib["viewBox"].split()]
        assert sizes == pytest.approx([float(x) for x in other.attrib["viewBox"].split()], abs=0.1)
        assert [one.text for one in list(written)[:2]] == [one.text for one in list(other)[:2]]
        lines = [one.attrib for one in written.iter(f"{SVG}path") if " h " not in one.attrib["d"]]
        assert [float(one["stroke-width"]) for one in lines] == pytest.approx(
            [patch.get_linewidth() for patch in drawn], abs=0.01
        )
        colors = ["#000000" if one["stroke"] == "currentColor" else one["stroke"] for one in lines]
        assert [rgb_of(color) for color in colors] == [patch.get_edgecolor()[:3] for patch in drawn]
        height = figure.get_figheight() * 72
        for line, patch in zip(lines, drawn, strict=True):
            places = np.array([float(word) for word in line["d"].split() if word not in "MLC"])
            expected = axes.transData.transform(patch.get_path().vertices) * 72 / figure.dpi
            expected[:, 1] = height - expected[:, 1]
            assert places.reshape(-1, 2) == pytest.approx(expected, abs=0.1)
        words = [word for text in texts_of(figure) for word in text.get_text().split("\n")]
        words += [text.get_text() for text in axes.get_legend().get_texts()]  # type: ignore[union-attr]  # it is not None
        texts = [str(one.text) for one in written.iter(f"{SVG}text")]
        assert sorted(set(texts) - {"line width: effect on the score"}) == sorted(set(words))


@pytest.mark.browser
def test_labels_in_a_page_do_not_overlap(browser: Browser, model: cdd.Model) -> None:
    explained = [model.explain(drug, "asthma") for drug in model.rank("asthma")["drug_name"]]
    rows = (stated_in_many_ways(), *(found for found in explained if found.height))
    page = browser.new_page()
    page.set_content("".join(evidence_svg(one, title="A") for one in rows))
    boxes = page.evaluate(
        "[...document.querySelectorAll('svg')].map(svg => [svg.viewBox.baseVal,"
        " ...[...svg.querySelectorAll('text')].map(text => text.getBBox())]"
        ".map(box => [box.x, box.y, box.x + box.width, box.y + box.height]))"
    )
    page.close()
    assert len(boxes) == len(rows)
    for (_, _, right, bottom), *texts in boxes:
        assert all(min(x, y) >= 0 and w <= right and h <= bottom for x, y, w, h in texts)
        for a, b in itertools.combinations(texts, 2):
            across, along = (min(a[i + 2], b[i + 2]) - max(a[i], b[i]) for i in (0, 1))
            assert across <= 0 or along <= 3  # boxes have room above and below letters


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_takes_axes_and_leaves_the_others_alone(name: str) -> None:
    figure = Figure()
    one, other = figure.subplots(1, 2)
    assert PICTURES[name](ax=one) is figure
    assert one.get_children() != other.get_children()
    assert not other.lines
    assert not other.texts
    with pytest.raises(InputError, match=r"ax .*must be axes of matplotlib"):
        PICTURES[name](ax="here")


@pytest.mark.parametrize("name", PICTURES)
def test_svg_is_the_same_text_each_time_and_ready_for_a_page(name: str) -> None:
    figure = PICTURES[name]()
    text = plot.svg(figure, title="A & B")
    assert text == plot.svg(figure, title="A & B") == plot.svg(PICTURES[name](), title="A & B")
    root = ET.fromstring(text)
    assert root.attrib["role"] == "img"
    title, about = list(root)[:2]
    assert (title.text, title.tag.split("}")[1], about.tag.split("}")[1]) == (
        "A & B",
        "title",
        "desc",
    )
    assert about.text
    ids = [element.attrib["id"] for element in root.iter() if "id" in element.attrib]
    assert len(set(ids)) == len(ids)
    prefix = {one.split("-")[0] for one in ids}
    assert len(prefix) == 1
    assert "currentColor" in text
    assert "#000000" not in text
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")


def test_names_in_a_picture_are_text() -> None:
    figure = plot.evidence(path_of("A", EVIL, "C"))
    text = plot.svg(figure, title=EVIL)
    assert "<script" not in text
    written = " ".join(t for t in ET.fromstring(text).itertext() if t.strip())
    assert EVIL in written  # in the title and the description
    assert "$x^2$" in written.replace("… ", "")


def test_curves_have_the_figures_of_the_report() -> None:
    line = plot.reliability(REPORT).axes[0].lines[1]
    assert line.get_xydata().tolist() == [[0.05, 0.04], [0.5, 0.7]]  # type: ignore[union-attr]  # it is an array
    axes = plot.recall(REPORT).axes[0]
    containers: list[Any] = axes.containers
    ranker, walk = (container.lines[0] for container in containers)
    assert ranker.get_ydata().tolist() == [0.25, 0.6]
    assert ranker.get_xdata()[1] < 50 < walk.get_xdata()[1]
    segments = containers[0].lines[2][0].get_segments()
    assert np.allclose(segments[1][:, 1], [0.5, 0.7])
    strata = plot.strata(REPORT).axes[0]
    assert [label.get_text() for label in strata.get_xticklabels()] == ["0\n4 pairs"]


def test_recall_at_every_rank_goes_through_the_points() -> None:
    ranks = pl.DataFrame({"ranker": ["ranker"] * 4, "rank": [2.0, 30.0, 60.0, 900.0]})
    axes = plot.recall(REPORT, rankers=["ranker"], ranks=ranks).axes[0]
    k, share = map(np.asarray, axes.lines[-1].get_data())
    assert np.interp([1, 10, 50, 100], k, share).tolist() == [0, 0.25, 0.5, 0.75]
    with pytest.raises(InputError, match="ranks does not have the ranker 'walk'"):
        plot.recall(REPORT, rankers=["walk"], ranks=ranks)


def test_a_history_is_a_file_or_a_table(model_dir: Path) -> None:
    axes: Axes = plot.history(model_dir / "history.csv").axes[0]
    stored = pl.read_csv(model_dir / "history.csv")
    assert np.asarray(axes.lines[0].get_ydata()).tolist() == stored["loss"].to_list()
    assert plot.history(HISTORY).axes[0].lines[1].get_xdata().tolist() == [1, 3]  # type: ignore[union-attr]  # it is an array
    columns = plot.history(model_dir / "history.csv", columns=["effective_rank"]).axes[0]
    assert "drug" in [text.get_text() for text in columns.get_legend().get_texts()]  # type: ignore[union-attr]  # it is not None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plot.reliability({"reliability": None}), "does not have a reliability curve"),
        (lambda: plot.reliability([]), "report .*must be the dict of report.json"),  # type: ignore[arg-type]  # wrong on purpose
        (lambda: plot.recall(REPORT, rankers=["x"]), "rankers .*'x'.*must be some of ranker, walk"),
        (lambda: plot.strata(REPORT, column="x"), "column .*must be one of diseases_of_drug"),
        (lambda: plot.history({"loss": [1.0]}), "must have the columns epoch and loss"),
        (lambda: plot.history("nowhere.csv"), "history .*nowhere.csv.*cannot be read"),
        (lambda: plot.evidence([]), "explanation .*must have at least one row"),
        (lambda: plot.evidence([{"kind": "stated"}]), "explanation, row 1 .*must have kind, text"),
        (lambda: plot.svg("picture", title="x"), "figure .*must be a figure of matplotlib"),  # type: ignore[arg-type]  # wrong on purpose
        (lambda: plot.map("model"), "model .*must be a model of load_model"),  # type: ignore[arg-type]  # wrong on purpose
    ],
)
def test_wrong_input_is_refused(call: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()


def test_a_map_takes_axes(model: cdd.Model) -> None:
    ax = Figure().add_subplot()
    figure = plot.map(model, type="disease", color_by="area", method="pca", ax=ax)
    assert figure.axes[0] is ax
    drawn = np.concatenate([np.asarray(one.get_offsets()) for one in ax.collections])
    assert drawn.shape == (115, 2)


def luminance(color: str) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb_of(color)]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


def test_lines_have_contrast_to_light_and_dark_pages() -> None:
    for color in {color for color, *_ in style.LINES}:
        for page in ("#ffffff", "#1b1b1b"):
            low, high = sorted([luminance(color), luminance(page)])
            assert (high + 0.05) / (low + 0.05) >= 3, (color, page)
    assert len({(color, marker) for color, _, marker in style.LINES}) == len(style.LINES)


# Machado et al. (2009), severity 1: protanopia, deuteranopia, tritanopia.
_BLIND = [
    [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
]


def test_color_blind_people_can_tell_the_colors_apart() -> None:
    colors = [style.BLUE, style.VERMILION, style.GREEN, style.PURPLE, style.ORANGE, style.SKY]

    def lab(color: str, matrix: npt.NDArray[Any]) -> npt.NDArray[Any]:
        c = np.array(rgb_of(color))
        linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
        seen = np.clip(matrix @ linear, 0, 1)
        xyz = np.array([[0.412, 0.358, 0.181], [0.213, 0.715, 0.072], [0.019, 0.119, 0.951]]) @ seen
        x, y, z = np.cbrt(xyz / [0.951, 1, 1.089])
        return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])

    for matrix in (np.eye(3), *map(np.array, _BLIND)):
        found = [lab(color, matrix) for color in colors]
        least = min(np.linalg.norm(a - b) for a, b in itertools.combinations(found, 2))
        assert least > 14  # 2 is just noticeable


def test_pictures_do_not_touch_pyplot_or_settings(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    report.write_text(json.dumps(REPORT))
    script = (
        "import json, sys, matplotlib\n"
        "from clinical_drug_discovery import plot\n"
        "before = matplotlib.rcParams.copy()\n"
        f"report = json.load(open({str(report)!r}))\n"
        "plot.svg(plot.recall(report), title='x')\n"
        "assert matplotlib.rcParams.copy() == before\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
