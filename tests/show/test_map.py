"""The map: planted groups are apart, the same seed gives the same file, names stay text."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numba
import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
import torch
from graphs import Fact, Node, graph_of, node

import clinical_drug_discovery as cdd
from clinical_drug_discovery.api import optional
from clinical_drug_discovery.graph.knowledge_graph import KnowledgeGraph
from clinical_drug_discovery.lib.similar import similar_nodes
from clinical_drug_discovery.show.map.areas import AREAS, disease_areas, drug_areas
from clinical_drug_discovery.show.map.colors import MOST_GROUPS, Coloring, color_nodes
from clinical_drug_discovery.show.map.coordinates import place_nodes
from clinical_drug_discovery.show.map.draw_map import draw_map
from clinical_drug_discovery.show.map.features import ATC, read_classes
from clinical_drug_discovery.show.map.node_map import MapChoice, NodeMap
from clinical_drug_discovery.show.map.page import map_page
from clinical_drug_discovery.show.plot.points import GROUP_STYLES
from clinical_drug_discovery.show.plot.style import GRAY
from clinical_drug_discovery.system.errors import InputError

if TYPE_CHECKING:
    from playwright.sync_api import Browser

CLASSES = Path(cdd.__file__).parent / "data" / "sample_drug_classes.csv"
EVIL = "</script><script>document.title='taken'</script><img src=x onerror=\"document.title='x'\">"
CHOICE = MapChoice("drug", "class", "pca", None, None, 0)


@pytest.fixture(scope="module")
def embeddings(model_dir: Path) -> Path:
    return model_dir.with_name("e.parquet")


def planted(rng: np.random.Generator) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Three groups of directions; the lengths of the vectors say nothing."""
    group = np.repeat([0, 1, 2], 40)
    directions = rng.normal(size=(3, 64))[group] + 0.4 * rng.normal(size=(120, 64))
    return (directions * rng.uniform(0.1, 9, (120, 1))).astype(np.float32), group


def small_map(names: list[str], groups: list[str | None]) -> NodeMap:
    number = len(names)
    nodes = pl.DataFrame(
        {
            "node_index": range(number),
            "node_id": [f"DB{i}" for i in range(number)],
            "node_type": ["drug"] * number,
            "node_name": names,
            "node_source": ["DrugBank"] * number,
        }
    )
    places = np.random.default_rng(0).normal(size=(number, 2)).astype(np.float32)
    return NodeMap(nodes, places, Coloring("class", tuple(groups), None), CHOICE, 0)


@pytest.mark.parametrize("method", ["umap", "pca"])
def test_planted_groups_lie_apart(method: str, rng: np.random.Generator) -> None:
    values, group = planted(rng)
    places = place_nodes(values, method, 0)
    distance = np.linalg.norm(places[:, None] - places[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    assert (group[distance.argmin(axis=1)] == group).all()
    middles = np.stack([places[group == g].mean(axis=0) for g in range(3)])
    widest = max(np.linalg.norm(places[group == g] - middles[g], axis=1).max() for g in range(3))
    assert np.linalg.norm(middles - np.roll(middles, 1, axis=0), axis=1).min() > widest


def test_a_seed_decides_the_places_and_threads_stay_as_they_were(rng: np.random.Generator) -> None:
    values, _ = planted(rng)

    def settings() -> tuple[Any, ...]:
        return (
            numba.get_num_threads(),
            vars(numba.config)["THREADING_LAYER"],
            torch.get_num_threads(),
        )

    before = settings()
    places = [place_nodes(values, "umap", seed) for seed in (3, 3, 4)]
    assert settings() == before
    assert (places[0] == places[1]).all()
    assert not np.allclose(places[0], places[2])
    scaled = place_nodes(values * np.float32(4), "pca", 0)
    assert np.allclose(scaled, place_nodes(values, "pca", 0), atol=1e-5)


def test_few_or_equal_nodes_get_places() -> None:
    for values in (np.eye(4, 8), np.ones((20, 8)), np.zeros((5, 8)), np.eye(9, 2)):
        places = place_nodes(values.astype(np.float32), "umap", 0)
        assert places.shape == (len(values), 2)
        assert np.isfinite(places).all()
    with pytest.raises(InputError, match="at least 3 nodes"):
        place_nodes(np.ones((2, 8), np.float32), "umap", 0)


@pytest.mark.parametrize(
    ("suffix", "method"), [(".html", "umap"), (".png", "pca"), (".svg", "pca"), (".html", "pca")]
)
def test_the_same_command_writes_the_same_file(
    suffix: str, method: str, embeddings: Path, tmp_path: Path
) -> None:
    outputs = [tmp_path / f"{name}{suffix}" for name in ("one", "two")]
    for output in outputs:
        result = draw_map(embeddings, output, method=method, color_by="class", features=CLASSES)
        assert result["num_nodes"] == 195
        assert sum(result["groups"].values()) == 195
    one, two = (output.read_bytes() for output in outputs)
    assert one == two
    assert b"antidiabetic" in one or suffix != ".html"


def test_near_points_of_the_map_are_similar_nodes(embeddings: Path, tmp_path: Path) -> None:
    draw_map(embeddings, tmp_path / "m.html")
    page = (tmp_path / "m.html").read_text()
    data = json.loads(re.findall(r'id="data">(.*?)</script>', page)[0])
    at = {
        name: (x, y)
        for one in data["traces"]
        for name, x, y in zip(one["names"], one["x"], one["y"], strict=True)
    }
    similar = [row["node_name"] for row in similar_nodes(embeddings, "Simvastatin", top=3)]
    distance = {name: np.hypot(*np.subtract(at[name], at["Simvastatin"])) for name in at}
    ranked = sorted(distance, key=lambda name: distance[name])
    assert set(similar) <= set(ranked[: len(at) // 5])


def test_a_page_is_whole_and_has_names_as_text_only() -> None:
    names = [EVIL, "a & b", "$x$ <b>", "plain\x1b"]
    page = map_page(small_map(names, [EVIL, "b", None, None]), GROUP_STYLES, GRAY)
    scripts = re.findall(r"<script.*?</script>", page, re.S)
    assert len(scripts) == 3  # plotly.js, the data, the script of the page
    outside = re.sub(r"<script.*?</script>", "", page, flags=re.S)
    for tag in re.findall(r"<[^>]*>", outside):  # names have &lt; instead of <
        assert not re.search(r"(?i)^<(img|link|iframe|a)\b|\b(src|href|onerror)=\S*\w", tag), tag
    assert "http:" not in outside
    assert "default-src 'none'" in outside
    data = json.loads(scripts[1].split(">", 1)[1].removesuffix("</script>"))
    shown = {name for one in data["traces"] for name in one["names"]}
    assert shown == {EVIL, "a & b", "$x$ <b>", r"plain\x1b"}


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1400])
def test_a_browser_shows_the_map_without_a_network(
    width: int, browser: Browser, tmp_path: Path
) -> None:
    path = tmp_path / "map.html"
    names = [EVIL, *(f"drug {i}" for i in range(40))]
    path.write_text(map_page(small_map(names, [EVIL, *["b"] * 40]), GROUP_STYLES, GRAY))
    context = browser.new_context(viewport={"width": width, "height": 900}, offline=True)
    asked: list[str] = []
    wrong: list[str] = []
    context.on("request", lambda one: asked.append(one.url))
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda one: wrong.append(one.text) if one.type == "error" else None)
    page.goto(path.as_uri())
    page.locator("#map .scatterlayer .point").first.wait_for()
    assert page.locator("#map .scatterlayer .point").count() == 41
    page.get_by_label("Find a node by name").fill("document.title")
    page.get_by_role("button", name="taken").click()
    page.locator("#map .annotation").first.wait_for()
    assert page.locator("#map .annotation").first.text_content() == EVIL
    assert page.title() == "Map of drug nodes by class"
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
    assert wrong == []
    context.close()


def test_the_largest_groups_get_colors_and_the_legend_counts_the_others() -> None:
    groups: list[str | None] = [f"g{i:02}" for i in range(25) for _ in range(30 - i)]
    legend = Coloring("class", (*groups, None), None).legend()
    assert [name for name, _ in legend[:2]] == ["g00", "g01"]
    assert [name for name, _ in legend[MOST_GROUPS:]] == ["other (7 groups)", "unknown"]
    assert sorted(at for _, places in legend for at in places) == list(range(len(groups) + 1))
    assert len(set(GROUP_STYLES)) == MOST_GROUPS


def test_areas_of_the_sample_graph() -> None:
    graph = cdd.sample_graph()
    names = graph.nodes.filter(pl.col("node_type") == "disease")["node_name"].to_list()
    area = dict(zip(names, disease_areas(graph), strict=True))
    assert set(area.values()) <= set(AREAS)
    for name, expected in {
        "asthma": "respiratory system",
        "Parkinson disease": "nervous system",
        "schizophrenia": "psychiatry",
        "atrial fibrillation": "heart and vessels",
        "glaucoma": "eye",
    }.items():
        assert area[name] == expected
    drugs = graph.nodes.filter(pl.col("node_type") == "drug")["node_name"].to_list()
    of_drug = dict(zip(drugs, drug_areas(graph), strict=True))
    assert of_drug["Olanzapine"] == "psychiatry"
    assert of_drug["Salbutamol"] == "respiratory system"


def test_the_way_to_an_area_avoids_children_with_two_parents() -> None:
    def disease(name: str) -> Node:
        return Node("MONDO", "disease", name, name)

    heads = [
        disease(name) for name in ("eye disorder", "skin disorder", "blood disorder", "cancer")
    ]
    eye, skin, *_ = heads
    middle, child, asked = disease("eyelid inflammation"), disease("both"), disease("asked")
    others = [disease(f"other {i}") for i in range(12)]
    pairs = [(asked, middle), (middle, eye), (asked, child), (child, skin)]
    pairs += [(middle, other) for other in others]
    facts: list[Fact] = [(a, "disease_disease", b) for a, b in pairs]
    facts += [(head, "disease_disease", disease(f"of {head.name}")) for head in heads]
    facts.append((node("drug", 1), "indication", asked))
    graph = graph_of(facts)
    names = graph.nodes.filter(pl.col("node_type") == "disease")["node_name"].to_list()
    assert dict(zip(names, disease_areas(graph), strict=True))["asked"] == "eye"


def colored(graph: KnowledgeGraph | None, **choice: Any) -> Coloring:
    nodes = cdd.sample_graph().nodes if graph is None else graph.nodes
    rows = np.flatnonzero((nodes["node_type"] == choice.get("type", "drug")).to_numpy())
    values = np.random.default_rng(0).normal(size=(len(rows), 8)).astype(np.float32)
    path, feature = choice.get("features"), choice.get("feature")
    return color_nodes(graph, rows, nodes[rows], values, choice["color_by"], path, feature, 0)


def test_classes_come_from_linked_nodes() -> None:
    def kind(number: int) -> Node:
        return Node("NDFRT", "pharmacologic_class", str(number), f"class {number}")

    facts: list[Fact] = [(node("drug", i), "drug_class", kind(i % 2)) for i in range(5)]
    facts += [(node("drug", 0), "drug_class", kind(9))]  # rarer than class 0
    facts += [(node("drug", 9), "indication", node("disease", 1))]
    found = colored(graph_of(facts), color_by="class").groups
    assert found == ("class 0", "class 1", "class 0", "class 1", "class 0", None)


def test_degrees_types_and_clusters() -> None:
    graph = cdd.sample_graph()
    numbers = colored(graph, color_by="degree").numbers
    assert numbers is not None
    assert numbers.min() >= 1
    assert set(colored(graph, color_by="type").groups or ()) == {"drug"}
    clusters = colored(graph, color_by="cluster").groups
    assert clusters == colored(graph, color_by="cluster").groups
    assert clusters is not None
    assert 2 <= len(set(clusters)) <= 12


def table(path: Path, rows: list[str]) -> Path:
    path.write_text("\n".join(rows) + "\n")
    return path


def test_features_are_sentences_of_primekg_or_codes(tmp_path: Path) -> None:
    nodes = small_map(["Warfarin", "Copper", "Aspirin", "New"], [None] * 4).nodes
    rows = [
        "node_index,state,atc_1,atc_4",
        '0,Warfarin is a solid.,"Warfarin is anatomically related to blood and blood forming '
        'organs.",The chemical and functional group of  is vitamin k antagonists.',
        "1,,,",
        "2,Aspirin is a solid.,Aspirin is anatomically related to nervous system and alimentary "
        "tract and metabolism.,",
    ]
    path = table(tmp_path / "drug_features.csv", rows)
    assert read_classes(path, None, nodes) == [ATC["B"], None, ATC["N"], None]
    assert read_classes(path, "state", nodes) == ["solid", None, "solid", None]
    assert read_classes(path, "atc_4", nodes)[0] == "vitamin k antagonists"
    codes = table(tmp_path / "atc.tsv", ["node_id\tatc", "DB0\tB01AA03", "DB2\tN02BA01;B01AC06"])
    assert read_classes(codes, None, nodes) == [ATC["B"], None, ATC["N"], None]


@pytest.mark.parametrize(
    ("rows", "feature", "message"),
    [
        (["id,class", "DB0,a"], None, "must have the column node_index or node_id"),
        (["node_id,kind", "DB0,a"], None, "must have one of the columns class, atc_1"),
        (["node_id,kind", "DB0,a"], "kin", "must be a column of .*did you mean 'kind'"),
        (["node_id,class", "DB0,a", "DB0,b"], None, "row 3: node_id 'DB0' is there twice"),
        (["node_id,class", "X1,a"], None, "does not have any of the 2 nodes.*'X1'.*'DB0'"),
        (["node_id,class"], None, "at least one row"),
        (["node_id,class", 'DB0,"a', "DB1,b"], None, "cannot be read as a table"),
    ],
)
def test_a_wrong_table_is_refused(
    rows: list[str], feature: str | None, message: str, tmp_path: Path
) -> None:
    nodes = small_map(["a", "b"], [None] * 2).nodes
    with pytest.raises(InputError, match=message):
        read_classes(table(tmp_path / "f.csv", rows), feature, nodes)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"output": "m.pdf"}, "output .*must end in one of .html, .png, .svg"),
        ({"type": "drugs"}, "type .*'drugs'.* must be all or one of .*did you mean 'drug'"),
        ({"color_by": "class"}, "color_by .*needs classes.*features"),
        ({"color_by": "area", "type": "gene/protein"}, "color_by .*needs a map of 'disease'"),
        ({"color_by": "area", "type": "all"}, "color_by .*needs a map of 'disease'"),
        ({"color_by": "degree", "features": CLASSES}, "features .*needs color_by 'class'"),
        ({"color_by": "class", "feature": "x"}, "feature .*'x'.* needs features"),
        ({"color_by": "color"}, "color_by .*must be 'class' or 'area'"),
        ({"method": "tsne"}, "method .*must be 'umap' or 'pca'"),
        ({"model_dir": "nowhere"}, "nowhere"),
        ({"seed": -1}, "seed .*-1"),
    ],
)
def test_a_wrong_choice_is_refused_and_writes_nothing(
    choice: dict[str, Any], message: str, embeddings: Path, tmp_path: Path
) -> None:
    given = {"output": "m.html", **choice}
    with pytest.raises(InputError, match=message):
        draw_map(embeddings, tmp_path / given.pop("output"), **given)
    assert [*tmp_path.iterdir()] == []


def test_a_file_is_replaced_only_on_request(embeddings: Path, tmp_path: Path) -> None:
    output = tmp_path / "m.png"
    output.write_text("earlier")
    with pytest.raises(InputError, match="exists already"):
        draw_map(embeddings, output, method="pca")
    draw_map(embeddings, output, method="pca", overwrite=True)
    assert output.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(InputError, match="output"):
        draw_map(embeddings, embeddings.with_suffix(".svg") / "m.svg" / "\0", method="pca")


@pytest.mark.parametrize(
    ("suffix", "package"), [("html", "plotly"), ("png", "matplotlib"), ("svg", "umap-learn")]
)
def test_a_missing_package_is_named_with_the_command(
    suffix: str, package: str, embeddings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import_module = vars(optional)["import_module"]

    def missing(name: str) -> Any:
        if name == package.removesuffix("-learn"):
            raise ModuleNotFoundError(name=name)
        return import_module(name)

    monkeypatch.setattr(optional, "import_module", missing)
    with pytest.raises(InputError, match=f"pip install {package}"):
        draw_map(embeddings, tmp_path / f"m.{suffix}")


def test_a_map_without_a_graph_has_clusters_but_not_degrees(
    embeddings: Path, tmp_path: Path
) -> None:
    alone = tmp_path / "alone.parquet"
    alone.write_bytes(embeddings.read_bytes())
    assert draw_map(alone, tmp_path / "m.png", method="pca")["num_nodes"] == 195
    with pytest.raises(InputError, match="needs the graph of the embeddings: model_dir"):
        draw_map(alone, tmp_path / "n.png", color_by="degree", method="pca")
