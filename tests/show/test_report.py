"""Reports: what they say, in each format, and that nothing in them is run or requested."""

from __future__ import annotations

import json
import re
import zipfile
from contextlib import suppress
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import polars as pl
import pytest
from contrasts import contrasts

import clinical_drug_discovery as cdd
from clinical_drug_discovery.lib.evaluate import EvaluationSettings, evaluate_model
from clinical_drug_discovery.ranking.path_scores import Form
from clinical_drug_discovery.show.report.links import links_of
from clinical_drug_discovery.show.report.page import percent
from clinical_drug_discovery.show.report.write import write_report
from clinical_drug_discovery.system.errors import InputError

if TYPE_CHECKING:
    from playwright.sync_api import Browser

EVIL = "<script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"
DAY = "2026-11-29"
SAMPLE = Path(cdd.__file__).parent / "data" / "sample_kg.csv"
PARKINSON = "Parkinson disease"


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("evaluation") / "results"
    sizes = {"embedding_dim": 16, "hidden_dim": 16, "num_epochs": 2}
    evaluate_model(
        SAMPLE, directory, model="graphsage", settings=EvaluationSettings("pair", share=0.2),
        model_settings=sizes, rankers=["ranker", "walk", "popularity"], cache=False,
    )  # fmt: skip
    return directory


@pytest.fixture(scope="module")
def strange(model: cdd.Model) -> cdd.Model:
    """A model with a drug for Parkinson disease whose name is markup, and one that is a formula."""
    rows = [("drug_protein", name, gene) for name in (EVIL, "=1+1") for gene in ("DRD2", "MAOB")]
    ids = dict(zip(model.graph.nodes["node_name"], model.graph.nodes["node_id"], strict=True))
    return model.add_facts(
        {
            "relation": [relation for relation, _, _ in rows],
            "x_id": [f"NEW{len(name)}" for _, name, _ in rows],
            "x_type": ["drug"] * len(rows),
            "x_name": [name for _, name, _ in rows],
            "y_id": [ids[gene] for _, _, gene in rows],
            "y_type": ["gene/protein"] * len(rows),
            "y_name": [gene for _, _, gene in rows],
        }
    )


@pytest.fixture(scope="module")
def strange_page(strange: cdd.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("strange") / "p.html"
    ranked = strange.rank(PARKINSON, 300)
    new = ranked["rank"].filter(ranked["drug_id"].str.starts_with("NEW")).to_list()
    write_report(path, model_dir=strange, disease=PARKINSON, top=max(new), date=DAY)
    return path


class Elements(HTMLParser):
    """The elements and the text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_says_what_the_model_answers(model: cdd.Model, tmp_path: Path) -> None:
    path = tmp_path / "p.html"
    found = write_report(path, model_dir=model, disease=PARKINSON, top=12, date=DAY)
    assert found == {
        "output": str(path), "bytes": path.stat().st_size, "about": f"drugs for {PARKINSON}"
    }  # fmt: skip
    elements = Elements(path.read_text(encoding="utf-8"))
    words = " ".join(elements.text.split())
    ranked = model.rank(PARKINSON, 12)
    for row in ranked.iter_rows(named=True):
        assert f"{row['rank']}. {row['drug_name']}" in words
        assert percent(row["probability"]) in words
        evidence = model.explain(row["drug_name"], PARKINSON)["text"]
        assert all(text in words for text in evidence)
    assert ranked["contraindicated"].any()
    assert words.count("contraindicated") > ranked["contraindicated"].sum()
    assert "Levodopa" in words  # a known treatment
    links = {attributes.get("href") for tag, attributes in elements.found if tag == "a"}
    assert "https://monarchinitiative.org/MONDO:0005180" in links
    assert "https://www.ncbi.nlm.nih.gov/gene/1813" in links  # DRD2
    assert json.loads((model.directory / "config.json").read_text())["edges_sha256"] in words
    assert f"{DAY}, clinical-drug-discovery {cdd.__version__}" in words


def test_a_page_requests_nothing_and_runs_nothing(strange_page: Path) -> None:
    page = strange_page.read_text(encoding="utf-8")
    elements = Elements(page)
    assert EVIL in elements.text  # as text
    tags = {tag for tag, _ in elements.found}
    assert tags.isdisjoint({"script", "img", "iframe", "object", "embed", "form", "link", "base"})
    for tag, attributes in elements.found:
        assert not any(name.startswith("on") for name in attributes)
        assert not {"src", "srcset", "data", "action"} & attributes.keys()
        address = attributes.get("href")
        assert address is None or address.startswith(("#", "https://") if tag == "a" else "#")
    assert "url(http" not in page
    assert "@import" not in page
    ids = [attributes["id"] for _, attributes in elements.found if "id" in attributes]
    assert len(ids) == len(set(ids))
    levels = [int(tag[1]) for tag, _ in elements.found if re.fullmatch(r"h\d", tag)]
    assert levels.count(1) == 1
    assert all(b <= a + 1 for a, b in pairwise(levels))


@pytest.mark.parametrize("suffix", [".html", ".xlsx", ".csv"])
def test_the_same_input_gives_the_same_bytes(
    model: cdd.Model, model_dir: Path, tmp_path: Path, suffix: str
) -> None:
    paths = [tmp_path / f"{name}{suffix}" for name in "ab"]
    sources: tuple[cdd.Model | Path, ...] = (model, model_dir)
    for path, source in zip(paths, sources, strict=True):
        write_report(path, model_dir=source, disease="asthma", top=4, date=DAY)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def cells_of(path: Path) -> dict[str, list[list[str]]]:
    """Return the cells of each sheet of a spreadsheet."""
    names = {"m": "http://schemas.openxmlformats.org/spreadsheetml/2006/main"}
    with zipfile.ZipFile(path) as files:
        strings = [
            "".join(part.text or "" for part in one.iter(f"{{{names['m']}}}t"))
            for one in ElementTree.fromstring(files.read("xl/sharedStrings.xml"))
        ]
        book = ElementTree.fromstring(files.read("xl/workbook.xml"))
        titles = [sheet.attrib["name"] for sheet in book.find("m:sheets", names) or ()]
        found = {}
        for number, title in enumerate(titles, start=1):
            sheet = ElementTree.fromstring(files.read(f"xl/worksheets/sheet{number}.xml"))
            assert sheet.find(".//m:f", names) is None  # no formula
            found[title] = [
                [
                    strings[int(cell.findtext("m:v", "", names))]
                    if cell.get("t") == "s"
                    else cell.findtext("m:v", "", names)
                    for cell in row
                ]
                for row in sheet.iterfind(".//m:row", names)
            ]
    return found


def test_tables_have_the_evidence_in_columns(strange: cdd.Model, tmp_path: Path) -> None:
    for suffix in (".csv", ".xlsx"):
        path = tmp_path / f"p{suffix}"
        write_report(path, model_dir=strange, disease=PARKINSON, top=300, date=DAY)
    table = pl.read_csv(tmp_path / "p.csv", infer_schema_length=None)
    expected = strange.rank(PARKINSON, 300)
    same = ("rank", "probability", "probability_treats", "known", "contraindicated")
    assert table.select(same).equals(expected.select(same))
    names = table["drug_name"].to_list()
    assert "'=1+1" in names
    assert EVIL in names
    row = table.row(by_predicate=pl.col("drug_name") == "Haloperidol", named=True)
    assert row["in_the_graph"] == "Haloperidol is contraindicated in Parkinson disease"
    evidence = strange.explain("Haloperidol", PARKINSON).filter(kind="mechanism")["text"]
    assert row["mechanism 1"] == evidence[0]
    sheets = cells_of(tmp_path / "p.xlsx")
    first, *rows = sheets["ranked drugs"]
    assert first == table.columns
    assert [cells[first.index("drug_name")] for cells in rows] == names
    assert ["drug_protein"] not in sheets["facts"]
    assert any("SNCA" in cells for cells in sheets["facts"])
    assert any("SHA-256 of the file" in cells for cells in sheets["how it was made"])


def test_a_disease_with_the_figures_of_an_evaluation(
    model: cdd.Model, evaluation: Path, tmp_path: Path
) -> None:
    path = tmp_path / "p.html"
    write_report(path, model_dir=model, disease=PARKINSON, evaluation=evaluation, top=2, date=DAY)
    words = " ".join(Elements(path.read_text(encoding="utf-8")).text.split())
    assert "In an evaluation of this graph" in words
    assert "\\n" not in path.read_text(encoding="utf-8")  # escapes would break a picture
    report = json.loads((evaluation / "report.json").read_text())
    assert f"{report['split_counts']['num_test_pairs']:,} held-out pairs" in words
    report["graph"] = "0" * 64
    other = tmp_path / "other"
    other.mkdir()
    (other / "report.json").write_text(json.dumps(report))
    (other / "ranks.parquet").write_bytes((evaluation / "ranks.parquet").read_bytes())
    with pytest.raises(InputError, match=r"is of graph 0000.*, but the model is of graph"):
        write_report(tmp_path / "q.html", model_dir=model, disease=PARKINSON, evaluation=other)
    assert not (tmp_path / "q.html").exists()


def test_the_report_of_an_evaluation(evaluation: Path, tmp_path: Path) -> None:
    for suffix in (".html", ".xlsx", ".csv"):
        write_report(tmp_path / f"e{suffix}", evaluation=evaluation, date=DAY)
    report = json.loads((evaluation / "report.json").read_text())
    elements = Elements((tmp_path / "e.html").read_text(encoding="utf-8"))
    words = " ".join(elements.text.split())
    for figures in report["rankers"].values():
        assert f"{figures['mrr']:.3f} ({figures['mrr_low']:.3f} to" in words
    assert report["graph"] in words
    assert sum(tag == "svg" for tag, _ in elements.found) == 4
    assert "\\n" not in words
    table = pl.read_csv(tmp_path / "e.csv")
    assert table["ranker"].to_list() == list(report["rankers"])
    assert table["recall@50_high"].to_list() == pytest.approx(
        [figures["recall@50_high"] for figures in report["rankers"].values()]
    )
    sheets = cells_of(tmp_path / "e.xlsx")
    assert {"rankers", "differences", "reliability", "how it was made"} <= sheets.keys()


def test_a_rank_band_counts_left_out_treatments(model: cdd.Model, tmp_path: Path) -> None:
    """Compare the two tables with a slow count over the diseases that an MLP has left out."""
    path = tmp_path / "p.xlsx"
    write_report(path, model_dir=model, disease=PARKINSON, date=DAY)
    sheets, ranking = cells_of(path), model.ranking
    hits, lists, found, pairs = 0, 0, 0, 0
    for n, diseases in enumerate(ranking.ranker.paths.left_out):
        for disease in diseases.tolist():
            (scores,) = ranking.ranker.paths.scores_by_mlp(
                ranking.features, diseases[diseases == disease], [Form(use_known=False)]
            )
            order = (-scores[0, n]).argsort(kind="stable").tolist()
            known = set(ranking.features.known_drugs(disease).tolist())
            hits += len(known & set(order[:5]))
            lists += 1
            unknown = [drug for drug in order if drug not in known]
            for drug in known:
                better = sum(scores[0, n, other] > scores[0, n, drug] for other in unknown)
                found += better < 10
                pairs += 1
    rows = {cells[0]: cells[1:] for cells in sheets["by rank"]}
    assert float(rows["1 to 5"][0]) == pytest.approx(hits / (5 * lists))
    rows = {cells[0]: cells[1:] for cells in sheets["hidden treatments"]}
    assert int(rows["0"][0]) == pairs
    assert float(rows["0"][1]) == pytest.approx(found / pairs, abs=2 / pairs)  # ties


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "model_dir and disease, or evaluation, must be given"),
        ({"disease": "asthma"}, "model_dir must be given"),
        ({"output": "x.pdf"}, r"output \(got x.pdf\) must end in one of .html, .xlsx, .csv"),
        ({"evaluation": "nowhere"}, r"evaluation \(got nowhere\) must be a directory that cdd"),
        ({"date": "29.11.2026"}, r"date \(got '29.11.2026'\) must be a date such as 2026-11-29"),
    ],
)
def test_mistakes_are_refused(given: dict[str, Any], message: str) -> None:
    output = given.pop("output", "x.html")
    with pytest.raises(InputError, match=message):
        write_report(output, **given)


def test_a_report_does_not_replace_an_input(model_dir: Path, evaluation: Path) -> None:
    embeddings = model_dir.with_name(f"{model_dir.name.removesuffix('_model')}.csv")
    for path in (model_dir / "history.csv", evaluation / "gold_pairs.csv", embeddings):
        with pytest.raises(InputError, match=r"output \(got .*\) would overwrite"):
            write_report(
                path, model_dir=model_dir, disease="asthma", evaluation=evaluation, overwrite=True
            )


def test_a_damaged_report_gives_one_line_or_a_report(evaluation: Path, tmp_path: Path) -> None:
    report = json.loads((evaluation / "report.json").read_text())
    (tmp_path / "ranks.parquet").write_bytes((evaluation / "ranks.parquet").read_bytes())
    others: list[dict[str, Any]] = []
    for name in report:
        others.append({key: value for key, value in report.items() if key != name})
        others += [{**report, name: value} for value in (None, [], {}, "x", 3, [3], {"a": 3})]
    pictured: list[dict[str, Any]] = [
        {"rankers": {"walk": {}}},
        {"strata": {"walk": {"drugs_of_disease": {"0": {}}}}},
    ]
    for other in (*others, *({**report, **one} for one in pictured)):
        (tmp_path / "report.json").write_text(json.dumps(other))
        with suppress(InputError):  # any other error fails
            write_report(tmp_path / "e.xlsx", evaluation=tmp_path, overwrite=True)
    for name in ("rankers", "strata", "reliability"):
        (tmp_path / "report.json").write_text(json.dumps({**report, name: [{"low": "x"}]}))
        with pytest.raises(InputError):
            write_report(tmp_path / "e.html", evaluation=tmp_path)
    pl.DataFrame({"ranker": [1], "rank": ["x"]}).write_parquet(tmp_path / "ranks.parquet")
    with pytest.raises(InputError, match=r"report.json and ranks.parquet: "):
        write_report(tmp_path / "e.html", evaluation=tmp_path)
    (tmp_path / "report.json").unlink()
    with pytest.raises(InputError, match=r"parquet: .*report\.json: No such file or directory$"):
        write_report(tmp_path / "e.html", evaluation=tmp_path)


def test_identifiers_get_the_address_of_their_source() -> None:
    addresses = {
        ("DB00502", "drug", "DrugBank"): "https://go.drugbank.com/drugs/DB00502",
        ("5180", "disease", "MONDO"): "https://monarchinitiative.org/MONDO:0005180",
        ("1813", "gene/protein", "NCBI"): "https://www.ncbi.nlm.nih.gov/gene/1813",
        ("2067", "effect/phenotype", "HPO"): "https://hpo.jax.org/browse/term/HP:0002067",
        ("R-HSA-112311", "pathway", "REACTOME"): "https://reactome.org/content/detail/R-HSA-112311",
        ("7268", "biological_process", "GO"):
            "https://amigo.geneontology.org/amigo/term/GO:0007268",
        ("CHEBI:1", "Compound", ""): "https://bioregistry.io/chebi:1",
        ("javascript:alert(1)", "drug", ""): "",
        ("1813\"onclick", "gene/protein", "NCBI"): "",
    }  # fmt: skip
    for (id_, kind, source), address in addresses.items():
        node = {"node_id": id_, "node_type": kind, "node_source": source}
        assert [link["url"] for link in links_of(node)] == [address], id_
    group = {"node_id": "13924_12592", "node_type": "disease", "node_source": "MONDO_grouped"}
    assert [link["text"] for link in links_of(group)] == ["MONDO:0013924", "MONDO:0012592"]


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1400])
def test_a_browser_shows_the_page_without_a_request(
    browser: Browser, strange_page: Path, width: int, scheme: Any
) -> None:
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    asked: list[str] = []
    context.on("request", lambda one: asked.append(one.url))
    page = context.new_page()
    page.goto(strange_page.as_uri())
    page.get_by_role("heading", name=PARKINSON, level=1).wait_for()
    assert page.title() == f"Drugs for {PARKINSON}"
    assert page.get_by_text(EVIL).count() > 1
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    page.get_by_role("link", name="Haloperidol", exact=True).click()
    assert page.get_by_text("Haloperidol is contraindicated in").first.is_visible()
    assert contrasts(page) == []
    context.close()
    assert asked == [strange_page.as_uri()]
