"""Ranked lists are safe: they mark what the graph states, and say what they leave out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from graphs import Fact, Node, node, planted_facts, to_rows
from rich.console import Console

from clinical_drug_discovery.lib._run import ranked_list
from clinical_drug_discovery.lib._run.ranked_list import Ranking
from clinical_drug_discovery.lib.gnn_embeddings import generate_gnn_embeddings
from clinical_drug_discovery.lib.rank import rank_drugs
from clinical_drug_discovery.ranking.drug_ranker import DrugRanker
from clinical_drug_discovery.ranking.evidence.explanations import NO_DIRECTION
from clinical_drug_discovery.ranking.for_drug import best_diseases, preparation, shared_parts
from clinical_drug_discovery.ranking.for_drug.log_sums import compute_log_sums
from clinical_drug_discovery.ranking.for_drug.preparation import ForDrugs
from clinical_drug_discovery.ranking.for_drug.shared_parts import SharedParts
from clinical_drug_discovery.show.terminal import ranked_lists
from clinical_drug_discovery.show.terminal.ranked_lists import show_ranking
from clinical_drug_discovery.system.errors import InputError

NUM_DRUGS, NUM_DISEASES = 24, 16
TYPES = ["drug", "disease", "gene/protein"]
LONELY_DRUG, LONELY_DISEASE = (Node(s, t, "99", f"lonely {t}") for s, t in (
    ("DrugBank", "drug"), ("MONDO", "disease"),
))  # fmt: skip
FULL = node("disease", 15)  # every drug but the lonely one treats it
ASKED = "disease 1"


def make_facts() -> tuple[list[Fact], str]:
    """Return facts, and the drug that suits `ASKED` but is contraindicated in it."""
    facts = planted_facts(num_drugs=NUM_DRUGS, num_diseases=NUM_DISEASES, num_genes=4)
    asked = node("disease", 1)
    fits = sorted(x for x, relation, y in facts if relation == "indication" and y == asked)
    facts.remove((fits[0], "indication", asked))
    facts += [(fits[0], relation, asked) for relation in ("off-label use", "contraindication")]
    facts += [
        (node("drug", i), "indication", FULL)
        for i in range(NUM_DRUGS)
        if (node("drug", i), "indication", FULL) not in facts
    ]
    symptom = Node("HPO", "effect/phenotype", "1", "symptom")
    facts.append((LONELY_DRUG, "drug_effect", symptom))
    facts.append((LONELY_DISEASE, "disease_phenotype_positive", symptom))
    return facts, fits[0].name


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A model whose lonely nodes lose their facts by the filter, and the harmful drug."""
    directory = tmp_path_factory.mktemp("lists")
    facts, harmful = make_facts()
    to_rows(facts).write_csv(directory / "kg.csv")
    stats = generate_gnn_embeddings(
        directory / "kg.csv", directory / "kg.parquet", embedding_dim=8, hidden_dim=8,
        num_layers=1, num_epochs=1, include_node_types=TYPES, cache=False,
    )  # fmt: skip
    return Path(stats["model_dir"]), harmful


@pytest.fixture
def model(planted: tuple[Path, str]) -> Path:
    return planted[0]


def test_a_contraindicated_drug_is_marked_or_hidden(planted: tuple[Path, str]) -> None:
    model, harmful = planted
    record = rank_drugs(model, disease=ASKED, top=5)
    first = record["drugs"][0]
    assert first["drug_name"] == harmful  # it shares the gene, and no other unlisted drug does
    assert (first["contraindicated"], first["known"]) == (True, False)
    assert first["stated"] == "contraindication; off-label use"
    assert {row["stated"] for row in record["drugs"][1:]} == {""}
    assert record["num_contraindicated"] == 1
    hidden = rank_drugs(model, disease=ASKED, top=4, hide_contraindicated=True)
    assert hidden["num_contraindicated_hidden"] == 1
    assert hidden["num_contraindicated"] == 0
    names = [row["drug_name"] for row in hidden["drugs"]]
    assert names == [row["drug_name"] for row in record["drugs"][1:]]
    every = rank_drugs(model, disease=ASKED, top=10_000, include_known=True)
    num_known = sum(row["known"] for row in every["drugs"])
    assert num_known == record["num_known_hidden"] > 0
    assert {row["stated"] for row in every["drugs"] if row["known"]} == {"indication"}
    assert every["num_candidates"] == len(every["drugs"]) == NUM_DRUGS
    assert record["disease_name"] == ASKED
    assert record["vocabulary"]["contraindicates"] == ("contraindication",)


def test_the_harmful_drug_is_red_in_a_terminal_and_texts_wrap_behind_their_labels(
    planted: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model, harmful = planted
    record = rank_drugs(model, disease=ASKED, top=2, explain=True)
    assert record["notes"] == [NO_DIRECTION]
    first, second = record["drugs"]
    assert first["stated_facts"][0] == {
        "text": f"{harmful} is contraindicated in {ASKED}",
        "relation": "contraindication",
        "contraindicated": True,
    }
    terminal = Console(
        force_terminal=True, color_system="standard", width=60, markup=False, highlight=False
    )
    monkeypatch.setattr(ranked_lists, "make_console", lambda: terminal)
    show_ranking(record)
    lines = capsys.readouterr().out.splitlines()
    red = [line for line in lines if "\x1b[31m" in line]
    assert harmful in red[0]
    assert "…" not in "".join(lines)
    assert any("in the graph" in line and "is contraindicated" in line for line in red)
    assert not any(second["drug_name"] in line for line in red)
    plain = [line.rstrip() for line in lines if "\x1b" not in line]
    assert max(map(len, plain)) <= 60
    path = first["evidence"][0]
    text = f"{path['text']} ({path['path_score']:.2g})"
    start = next(i for i, line in enumerate(plain) if line.split()[:1] == [path["kind"]])
    column = plain[start].index(text.split()[0])
    parts = [plain[start][column:]]
    while plain[start + len(parts)].startswith(" " * column):
        parts.append(plain[start + len(parts)][column:])
    assert len(parts) > 1
    assert " ".join(parts) == text


@pytest.mark.parametrize("question", [{"disease": ASKED}, {"drug": "drug 3"}])
def test_csv_parquet_and_json_hold_the_same_values(
    model: Path, tmp_path: Path, question: dict[str, Any]
) -> None:
    tables = []
    for suffix in (".csv", ".parquet"):
        output = tmp_path / f"list{suffix}"
        record = rank_drugs(model, output=output, top=9, include_known=True, **question)
        assert record["output"] == str(output)
        rows = record["drugs" if "disease" in question else "diseases"]
        if suffix == ".csv":
            ids = dict.fromkeys(("disease_id", "drug_id"), pl.String)
            tables.append(pl.read_csv(output, schema_overrides=ids).to_dicts())
        else:
            tables.append(pl.read_parquet(output).to_dicts())
        assert tables[-1] == rows
    assert len(tables[0]) == 9
    guide = (Path(__file__).parents[2] / "docs" / "guide" / "rank.md").read_text(encoding="utf-8")
    assert [name for name in tables[0][0] if f"`{name}`" not in guide] == []


@pytest.mark.parametrize("popularity", [True, False])
def test_a_search_and_the_sums_find_the_diseases_of_a_ranking_of_each(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, popularity: bool
) -> None:
    ranking = Ranking.of(model)
    features, diseases = ranking.features, np.flatnonzero(ranking.disease_has_facts)
    every = ranking.ranker.scores(features, diseases, popularity=popularity)
    chances, _ = ranking.ranker.probabilities(features, diseases, every, popularity=popularity)
    known = features.known.toarray().T[diseases] > 0
    monkeypatch.setattr(preparation, "_FEW_DISEASES", 0)
    monkeypatch.setattr(best_diseases, "NUM_RIVALS", 5)
    monkeypatch.setattr(best_diseases, "_EXACT", 2)
    parts = ranking.graph, features, ranking.ranker
    shared = SharedParts(ranking.graph, ranking.ranker.paths, tmp_path / "sums")
    search = ForDrugs(*parts, None).get(popularity, often=True)
    sums = ForDrugs(*parts, shared).get(popularity, often=True)
    assert search.rivals is not None
    assert sums.rivals is None
    num_exact = []
    for drug in range(ranking.drugs.height):
        bounds = search._estimates(drug)[diseases] + best_diseases._MARGIN
        assert (bounds >= every[:, drug])[~known[:, drug]].all()
        exact = sums._estimates(drug)[diseases]
        np.testing.assert_allclose(exact, every[:, drug], atol=1e-4)
        among = every[:, drug] + np.log(np.maximum(features.known_counts[diseases], 1))
        order = np.lexsort((diseases, -among, -chances[:, drug]))
        search.exact.clear()
        for found in (search, sums):
            best = found.best(drug, diseases, 4)
            wanted = order[:4]
            np.testing.assert_allclose(best.scores, every[wanted, drug], atol=2e-4)
            np.testing.assert_allclose(best.probabilities, chances[wanted, drug], atol=2e-4)
            if (np.diff(chances[order[:5], drug]) < -1e-3).all():  # not nearly the same
                np.testing.assert_array_equal(best.diseases, diseases[wanted])
        num_exact.append(len(search.exact))
    assert np.mean(num_exact) < 0.9 * len(diseases)


def test_the_sums_are_kept_until_the_ranker_or_the_graph_changes(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranking, path = Ranking.of(model), tmp_path / "sums"
    graph, features, ranker = ranking.graph, ranking.features, ranking.ranker
    calls: list[int] = []

    def counted(*given: Any) -> Any:
        calls.append(1)
        return compute_log_sums(*given)

    monkeypatch.setattr(preparation, "_FEW_DISEASES", 0)
    monkeypatch.setattr(shared_parts, "compute_log_sums", counted)

    def for_drugs(ranker: DrugRanker = ranker, path: Path = path) -> ForDrugs:
        return ForDrugs(graph, features, ranker, SharedParts(graph, ranker.paths, path))

    prepared = for_drugs()
    assert prepared.get(True, often=False).rivals is not None  # a search, since nothing is kept
    assert not calls
    assert not path.exists()
    wanted = prepared.get(True, often=True)
    prepared.get(False, often=True)
    assert len(calls) == 1  # for both
    again = for_drugs().get(True, often=False)
    np.testing.assert_array_equal(again.log_sums, wanted.log_sums)
    assert len(calls) == 1
    other = replace(ranker.paths, base_scale=ranker.paths.base_scale * 2)
    for_drugs(replace(ranker, paths=other)).get(True, often=True)
    assert len(calls) == 2
    path.write_bytes(path.read_bytes()[:-4])
    for_drugs().get(True, often=True)
    assert len(calls) == 3
    nowhere = tmp_path / "sums" / "sums"  # within a file
    for_drugs(path=nowhere).get(True, often=True)
    assert len(calls) == 4


def test_diseases_for_a_drug_have_the_probabilities_of_the_drug_for_each_disease(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "all.parquet"
    rank_drugs(model, diseases="all", output=output, top=10_000, include_known=True)
    expected = {
        row["disease_name"]: row
        for row in pl.read_parquet(output).filter(pl.col("drug_name") == "drug 3").to_dicts()
    }
    monkeypatch.setattr(ranked_list, "CHUNK", 5)  # several chunks
    record = rank_drugs(model, drug="drug 3", top=10_000, include_known=True)
    rows = record["diseases"]
    assert record["num_candidates"] == len(rows) == len(expected) == NUM_DISEASES
    assert record["num_diseases_without_facts"] == 1
    assert [row["rank"] for row in rows] == list(range(1, NUM_DISEASES + 1))
    probabilities = [row["probability"] for row in rows]
    assert probabilities == sorted(probabilities, reverse=True)
    for row in rows:
        same = expected[row["disease_name"]]
        assert row["probability"] == pytest.approx(same["probability"], abs=2e-4)
        assert row["score"] == pytest.approx(same["score"], abs=2e-4)
        assert all(row[c] == same[c] for c in ("known", "contraindicated", "stated", "drug_id"))
    unlisted = rank_drugs(model, drug="drug 3", top=3)
    names = [row["disease_name"] for row in rows if not row["known"]]
    assert [row["disease_name"] for row in unlisted["diseases"]] == names[:3]
    assert unlisted["num_known_hidden"] == sum(row["known"] for row in rows)
    show_ranking(unlisted)
    shown = capsys.readouterr().out
    assert "Diseases for drug 3 (DrugBank:3)" in shown
    assert all(name in shown for name in names[:3])


def test_kept_scores_are_those_of_their_disease_with_or_without_popularity(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of the diseases asked last are kept but the first; each is asked twice."""
    monkeypatch.setattr(ranked_list, "_NUM_RECENT", 5)
    ranking = Ranking.of(model)
    forms = {popular: replace(ranking, popularity=popular) for popular in (True, False)}
    for popular, form in forms.items():
        for disease in [0, 1, 2, 1, 0, 3, 4, 5, 6, 0]:
            one = np.array([disease])
            expected = ranking.ranker.scores(ranking.features, one, popularity=popular)
            np.testing.assert_array_equal(form._scores(one)[0], expected)
            np.testing.assert_array_equal(form._scores(one)[0], expected)
    assert len(ranking._recent) == 5
    assert [len(part) for part in forms[True]._scores(np.array([0, 1]))] == [2, 2, 2]


def test_a_table_does_not_depend_on_what_was_asked_before(model: Path) -> None:
    """The scores of many diseases differ by rounding errors, and a chunk may have one disease."""
    ranking = Ranking.of(model)
    one = np.array([3])
    first = ranking._scores(one)
    assert ranking._scores(one) is first
    table = ranking._scores(one, many=True)
    assert table is not first
    assert ranking._scores(one) is first
    expected = ranking.ranker.scores(ranking.features, one, many=True)
    np.testing.assert_array_equal(table[0], expected)


def test_own_candidates_keep_their_scores(model: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("drug 7\nDrugBank:2\n\n5\n")
    every = rank_drugs(model, disease=ASKED, top=100, include_known=True)["drugs"]
    record = rank_drugs(
        model, disease=ASKED, drugs=tmp_path / "mine.txt", top=100, include_known=True
    )
    wanted = [row for row in every if row["drug_name"] in ("drug 7", "drug 2", "drug 5")]
    assert record["drugs"] == [{**row, "rank": i} for i, row in enumerate(wanted, start=1)]
    assert record["num_candidates"] == 3


def test_nodes_without_facts_are_refused_or_left_out(model: Path, tmp_path: Path) -> None:
    refused = r"does not have facts in the graph"
    questions: list[dict[str, Any]] = [{"disease": LONELY_DISEASE.name}, {"drug": LONELY_DRUG.name}]
    for question in questions:
        with pytest.raises(InputError, match=rf"\(got 'lonely .*'\) {refused}"):
            rank_drugs(model, **question)
    (tmp_path / "list.txt").write_text(f"disease 2\n{LONELY_DISEASE.name}\n")
    output = tmp_path / "ranks.csv"
    with pytest.raises(InputError, match=rf"diseases, line 2 of .* {refused}"):
        rank_drugs(model, diseases=tmp_path / "list.txt", output=output)
    (tmp_path / "mine.txt").write_text(f"{LONELY_DRUG.name}\n")
    with pytest.raises(InputError, match=rf"drugs, line 1 of .* {refused}"):
        rank_drugs(model, disease=ASKED, drugs=tmp_path / "mine.txt")
    assert not output.exists()
    record = rank_drugs(model, diseases="all", output=output, top=100, include_known=True)
    assert record["num_diseases"] == NUM_DISEASES
    assert record["num_diseases_without_facts"] == record["num_drugs_without_facts"] == 1
    assert record["num_rows"] == NUM_DISEASES * NUM_DRUGS
    table = pl.read_csv(output)
    assert LONELY_DISEASE.name not in table["disease_name"]
    assert LONELY_DRUG.name not in table["drug_name"]


def test_a_disease_that_has_every_drug_gives_an_empty_list(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for suffix in (".csv", ".parquet"):
        output = tmp_path / f"ranks{suffix}"
        record = rank_drugs(model, disease=FULL.name, output=output)
        assert record["drugs"] == []
        assert record["num_known_hidden"] == NUM_DRUGS
        read: Any = pl.read_csv if suffix == ".csv" else pl.read_parquet
        assert read(output).columns[-1] == "stated"
        assert read(output).height == 0
    show_ranking(record)
    shown = capsys.readouterr().out
    assert "The list is empty" in shown
    assert f"Hidden: {NUM_DRUGS} that the graph lists as treatments of the disease" in shown
    assert rank_drugs(model, disease=FULL.name, explain=True)["notes"] == []
    many = rank_drugs(model, diseases="all", output=output, top=2, overwrite=True)
    assert FULL.name not in pl.read_parquet(output)["disease_name"]
    assert many["num_rows"] == (NUM_DISEASES - 1) * 2
