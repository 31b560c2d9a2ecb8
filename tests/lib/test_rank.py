"""`cdd rank`: what is planted is found, alone or in a batch, and mistakes leave nothing behind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from graphs import Fact, node, planted_facts, to_rows
from typer.testing import CliRunner

from clinical_drug_discovery.cli import make_app
from clinical_drug_discovery.lib.gnn_embeddings import generate_gnn_embeddings
from clinical_drug_discovery.lib.rank import rank_drugs
from clinical_drug_discovery.show.terminal.ranked_lists import show_ranking
from clinical_drug_discovery.system.errors import InputError

SMALL: dict[str, Any] = {"embedding_dim": 8, "hidden_dim": 8, "num_layers": 1, "num_epochs": 1}
COLUMNS = [
    "disease_index", "disease_id", "disease_name", "rank", "drug_index", "drug_id", "drug_name",
    "score", "probability", "probability_treats", "known", "contraindicated", "stated",
]  # fmt: skip
HIDDEN = 6  # diseases of which nothing is said to treat them


def treats(facts: list[Fact], disease: int) -> set[str]:
    asked = node("disease", disease)
    return {x.name for x, relation, y in facts if relation == "indication" and y == asked}


def embed(facts: list[Fact], directory: Path, name: str, *, shuffle: int | None = None) -> Path:
    rows = to_rows(facts, both=True)
    if shuffle is not None:
        rows = rows.sample(fraction=1, shuffle=True, seed=shuffle)
    rows.write_csv(directory / f"{name}.csv")
    stats = generate_gnn_embeddings(
        directory / f"{name}.csv",
        directory / f"{name}.parquet",
        cache=False,
        overwrite=True,
        **SMALL,
    )
    assert stats["warnings"] == []
    assert stats["seconds_rank_fit"] > 0
    return Path(stats["model_dir"])


MANY = "clinical_drug_discovery.ranking.path_scores._MANY_DISEASES"


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Fact], Path]:
    """All facts, and a model of the graph that says nothing of the first diseases' treatments."""
    facts = planted_facts()
    hidden = {node("disease", i) for i in range(HIDDEN)}
    known = [f for f in facts if not (f[1] == "indication" and f[2] in hidden)]
    return facts, embed(known, tmp_path_factory.mktemp("planted"), "kg")


@pytest.fixture
def model(planted: tuple[list[Fact], Path]) -> Path:
    return planted[1]


def ranked(model: Path, disease: str, **options: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = rank_drugs(model, disease=disease, **options)["drugs"]
    return rows


def test_a_planted_mechanism_is_ranked_first(planted: tuple[list[Fact], Path]) -> None:
    facts, model = planted
    hits = []
    for disease in range(HIDDEN):
        wanted = treats(facts, disease)
        rows = ranked(model, f"disease {disease}", top=max(len(wanted), 1))
        assert list(rows[0]) == COLUMNS
        assert not any(row["known"] for row in rows)
        hits += [row["drug_name"] in wanted for row in rows if wanted]
    assert sum(hits) / len(hits) > 0.8


def test_known_drugs_are_left_out_unless_asked_for(planted: tuple[list[Fact], Path]) -> None:
    facts, model = planted
    disease = next(i for i in range(HIDDEN, 40) if len(treats(facts, i)) > 2)
    known = treats(facts, disease)
    rows = ranked(model, f"MONDO:{disease}", top=60, include_known=True)
    assert len(rows) == 60
    assert {row["drug_name"] for row in rows if row["known"]} == known
    assert {row["drug_name"] for row in rows[: len(known)]} == known
    others = ranked(model, str(disease), top=60)
    assert [r["drug_name"] for r in others] == [r["drug_name"] for r in rows if not r["known"]]
    assert [row["rank"] for row in others] == list(range(1, 61 - len(known)))
    order = [(-row["score"], row["drug_index"]) for row in rows]
    assert order == sorted(order)
    chances = [row["probability"] for row in rows]
    assert all(0 < p < 1 for p in chances)
    assert chances == sorted(chances, reverse=True)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_batch_equals_single_questions(model: Path, tmp_path: Path, suffix: str) -> None:
    names = ["disease 30", "MONDO:2", "", "7"]
    (tmp_path / "asked.txt").write_text("\n".join(names))
    output = tmp_path / f"new/ranks{suffix}"
    record = rank_drugs(model, diseases=tmp_path / "asked.txt", output=output, top=4)
    assert record["num_rows"] == 12
    if suffix == ".csv":
        read = pl.read_csv(output, schema_overrides={"disease_id": pl.String, "drug_id": pl.String})
    else:
        read = pl.read_parquet(output)
    assert read.columns == COLUMNS
    alone = [row for name in names if name for row in ranked(model, name, top=4)]
    for got, expected in zip(read.to_dicts(), alone, strict=True):
        numbers = ("score", "probability")
        assert [got[n] for n in numbers] == pytest.approx([expected[n] for n in numbers], abs=2e-4)
        assert all(got[c] == expected[c] for c in COLUMNS if c not in numbers)
    every: dict[str, Any] = {"diseases": "all", "output": output, "top": 60, "include_known": True}
    content = output.read_bytes()
    with pytest.raises(InputError, match=r"ranks\..* exists already.*--overwrite"):
        rank_drugs(model, **every)
    assert output.read_bytes() == content
    everything = rank_drugs(model, overwrite=True, **every)
    assert everything["num_rows"] == everything["num_diseases"] * 60


def test_the_number_of_workers_changes_no_byte(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clinical_drug_discovery.lib._run.ranked_list.CHUNK", 3)  # 14 chunks
    monkeypatch.setattr(MANY, 40)  # all of the graph
    found = []
    for workers in (None, 1, 2, 5):
        output = tmp_path / f"ranks-{workers}.csv"
        record = rank_drugs(model, diseases="all", output=output, top=4, workers=workers)
        record = {k: v for k, v in record.items() if k not in ("output", "seconds")}
        found.append((record, output.read_bytes()))
    assert all(one == found[0] for one in found)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("n", [1, 2, 3, 7])
def test_the_tables_of_all_shards_are_the_table_of_one_run(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, n: int
) -> None:
    for module in ("rank", "_run.ranked_list"):  # the graph has 40 diseases: 8 chunks, then
        monkeypatch.setattr(f"clinical_drug_discovery.lib.{module}.CHUNK", 5)
    monkeypatch.setattr(MANY, 40)  # fewer are in each of several shards
    whole = tmp_path / f"whole{suffix}"
    asked: dict[str, Any] = {"diseases": "all", "top": 4}
    every = rank_drugs(model, output=whole, **asked)
    assert every["shard"] is None
    outputs = [tmp_path / f"ranks-{i}{suffix}" for i in range(1, n + 1)]
    records = [
        rank_drugs(model, output=output, shard=f"{i}/{n}", **asked)
        for i, output in enumerate(outputs, start=1)
    ]
    assert [record["shard"] for record in records] == [f"{i}/{n}" for i in range(1, n + 1)]
    for name in ("num_diseases", "num_rows", "num_known_hidden", "num_contraindicated"):
        assert sum(record[name] for record in records) == every[name]
    if suffix == ".csv":
        tables = [output.read_bytes().splitlines(keepends=True) for output in outputs]
        assert {lines[0] for lines in tables} == {tables[0][0]}
        joined = [tables[0][0], *(line for lines in tables for line in lines[1:])]
        assert b"".join(joined) == whole.read_bytes()
    else:
        joined_rows = pl.scan_parquet(tmp_path / "ranks-*.parquet").collect()
        assert joined_rows.equals(pl.read_parquet(whole))
    with pytest.raises(
        InputError, match=r"shard \(got '9/9'\) must be i/n with n at most 8: each part"
    ):
        rank_drugs(model, output=tmp_path / f"more{suffix}", shard="9/9", **asked)


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfdisease 30\r\n\r\n  MONDO:2 \t\r\n",
        b"disease 30\rMONDO:2",
        b"DISEASE 30\n2\n\n",
    ],
)
def test_files_of_other_editors_are_read(model: Path, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "asked.txt").write_bytes(content)
    output = tmp_path / "ranks.parquet"
    rank_drugs(model, diseases=tmp_path / "asked.txt", output=output, top=1)
    assert pl.read_parquet(output)["disease_name"].to_list() == ["disease 30", "disease 2"]


def test_names_come_back_from_csv(tmp_path: Path) -> None:
    names = {"disease 3": 'dis, "odd" \u2028 ü', "drug 2": "=cmd|' ,é", "drug 3": "[b]x[/]"}
    facts: list[Fact] = [
        (x._replace(name=names.get(x.name, x.name)), r, y._replace(name=names.get(y.name, y.name)))
        for x, r, y in planted_facts(2, num_drugs=20, num_diseases=12)
    ]
    model = embed(facts, tmp_path, "kg")
    (tmp_path / "asked.txt").write_text(names["disease 3"] + "\n", encoding="utf-8")
    output = tmp_path / "ranks.csv"
    rank_drugs(model, diseases=tmp_path / "asked.txt", output=output, top=20, include_known=True)
    read = pl.read_csv(output)
    assert set(read["disease_name"]) == {names["disease 3"]}
    # A spreadsheet would compute the name that starts with =.
    assert set(read["drug_name"]) >= {"'" + names["drug 2"], names["drug 3"]}


def test_the_embeddings_of_the_model_are_never_overwritten(model: Path) -> None:
    embeddings = model.with_name("kg.parquet")
    content = embeddings.read_bytes()
    link = model.with_name("link.parquet")
    link.symlink_to(embeddings)
    for output in (embeddings, link):
        with pytest.raises(InputError, match=r"output \(got .*\) would overwrite the model's emb"):
            rank_drugs(model, diseases="all", output=output, overwrite=True)
    assert embeddings.read_bytes() == content


def test_the_order_of_the_file_changes_nothing(tmp_path: Path) -> None:
    facts = planted_facts(1, num_drugs=20, num_diseases=12, num_genes=4)
    one, other = (embed(facts, tmp_path, f"kg{i}", shuffle=i) for i in (1, 2))
    for disease in ("disease 3", "disease 7"):
        assert ranked(one, disease) == ranked(other, disease)


def cdd(*arguments: object) -> Any:
    runner = CliRunner(env={"COLUMNS": "200", "TERM": "dumb"})
    return runner.invoke(make_app(), ["rank", *map(str, arguments)])


def test_json_and_table_of_the_command(model: Path) -> None:
    asked = ["--model-dir", model, "--disease", "disease 1", "--top", 2, "--explain"]
    record = json.loads(cdd(*asked, "--json").stdout)
    rows = record["drugs"]
    assert [row["rank"] for row in rows] == [1, 2]
    assert list(rows[0]) == [*COLUMNS, "rank_without_popularity", "stated_facts", "evidence"]
    path = rows[0]["evidence"][0]
    assert list(path) == [
        "kind", "text", "path_score", "through_target", "nodes", "relations", "effect"
    ]  # fmt: skip
    assert all(one["effect"] > 0 for row in rows for one in row["evidence"])
    assert list(path["nodes"][0]) == ["node_index", "node_id", "node_name", "node_type"]
    assert len(path["nodes"]) == len(path["relations"]) + 1
    shown = cdd(*asked).stdout
    assert rows[0]["drug_name"] in shown
    assert path["text"] in shown


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "exactly one of disease, diseases and drug must be given (got none)"),
        (["--disease", "1", "--diseases", "all"], "exactly one of disease, diseases and drug"),
        (["--diseases", "all"], "diseases (got all) needs output, the file for the table"),
        (
            ["--diseases", "all", "--output", "r.csv", "--explain"],
            "explain works with one disease or one drug",
        ),
        (["--disease", "1", "--explain", "--output", "r.csv"], "explain does not work with output"),
        (["--disease", "1", "--drug", "2"], "must be given (got disease '1' and drug '2')"),
        (["--drug", "1", "--drugs", "ids.txt"], "drugs names the drugs to rank for a disease"),
        (["--drug", "disease 1"], "drug (got 'disease 1') must be the name or id of a node"),
        (["--disease", "1", "--drugs", "ids.txt"], "drugs, line 1 of ids.txt (got 'disease 1')"),
        (["--disease", "1", "--drugs", "all"], "drugs (got all) must be a file of names or ids: "),
        (["--disease", "1", "--top", "0"], "top (got 0)"),
        (["--disease", "diseas 1"], "disease (got 'diseas 1') must be the name or id of a node"),
        (["--disease", "drug 1"], "disease (got 'drug 1') must be the name or id of a node"),
        (["--diseases", "all", "--output", "r.npy"], "output (got r.npy) must end in one of .csv"),
        (["--diseases", "all", "--output", "."], "output (got .)"),
        *(
            (["--diseases", "all", "--output", "r.csv", "--shard", text], "must be i/n, the i-th")
            for text in ("0/3", "4/3", "0/0", "a/b", "1", "-1/2", "1/2/3", "1.0/2", f"1/1{'0' * 9}")
        ),
        (
            ["--diseases", "all", "--output", "r.csv", "--shard", "1/2"],
            "must be i/n with n at most 1: each",
        ),
        (["--disease", "1", "--shard", "1/2"], "shard (got '1/2') works with diseases only"),
        (["--disease", "1", "--workers", "2"], "workers (got 2) works with diseases only"),
        (["--diseases", "ids.txt", "--output", "r.csv"], "diseases, line 3 of ids.txt (got 'nix')"),
        (["--diseases", "twice.txt", "--output", "r.csv"], "line 2 of twice.txt (got 'MONDO:1')"),
        (["--diseases", "empty.txt", "--output", "r.csv"], "diseases (got empty.txt) is empty"),
        (["--diseases", "none.txt", "--output", "r.csv"], "diseases (got none.txt) must be a file"),
        (["--diseases", "ids.txt", "--output", "ids.csv"], "line 3"),
        (["--diseases", "1", "--output", "r.csv"], "a file of names or ids, or all"),
        (["--diseases", ".", "--output", "r.csv"], "diseases (got .) must be a file of names or"),
        (["--diseases", "latin.txt", "--output", "r.csv"], "(got latin.txt) must be UTF-8"),
        (["--disease", "1", "--model-dir", "none"], "model_dir (got none) must be a directory"),
    ],
)
def test_mistakes_end_with_code_2_and_nothing_is_written(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("ids.txt").write_text("disease 1\n\nnix\n")
    Path("twice.txt").write_text("disease 1\nMONDO:1\n")
    Path("latin.txt").write_bytes(b"disease 1\nM\xe9ni\xe8re\n")
    Path("empty.txt").write_text("\n")
    before = sorted(tmp_path.iterdir())
    place = [] if "--model-dir" in options else ["--model-dir", model]
    result = cdd(*place, *options)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("name", ["ranker.safetensors", "graph.safetensors"])
def test_files_that_are_missing_damaged_or_of_another_run(
    model: Path, tmp_path: Path, name: str
) -> None:
    copy = tmp_path / "model"
    shutil.copytree(model, copy)
    whole = (copy / name).read_bytes()
    for content in (whole[:-9] + b"x" * 9, whole[:50], b""):
        (copy / name).write_bytes(content)
        with pytest.raises(InputError, match=f"{name} is damaged"):
            rank_drugs(copy, disease="disease 1")
    (copy / name).unlink()
    with pytest.raises(InputError, match=f"must hold {name}"):
        rank_drugs(copy, disease="disease 1")
    with pytest.raises(InputError, match=r"must hold ranker\.safetensors$"):  # nothing to fit
        rank_drugs(tmp_path, disease="disease 1")
    other = embed(planted_facts(2, num_drugs=20, num_diseases=12), tmp_path, "other")
    shutil.copy(other / name, copy / name)
    with pytest.raises(InputError, match=r"fitted on another graph|mixes two runs"):
        rank_drugs(copy, disease="disease 1")


def test_without_treatments_it_says_so_and_an_old_ranker_goes(tmp_path: Path) -> None:
    facts = planted_facts(2, num_drugs=20, num_diseases=12)
    model = embed(facts, tmp_path, "kg")
    to_rows([f for f in facts if f[1] != "indication"]).write_csv(tmp_path / "kg.csv")
    edges, output = tmp_path / "kg.csv", tmp_path / "kg.parquet"
    options: dict[str, Any] = {"cache": False, "overwrite": True, **SMALL}
    stats = generate_gnn_embeddings(edges, output, ranker=False, **options)
    assert stats["warnings"] == []
    assert stats["seconds_rank_fit"] < 0.1
    with pytest.raises(InputError, match=r"must hold ranker\.safetensors"):
        rank_drugs(model, disease="disease 1")
    (text,) = generate_gnn_embeddings(edges, output, **options)["warnings"]
    assert "no drug ranker will be fitted" in text
    assert "no edges between drug and disease" in text


def test_tiny_graphs_have_a_ranker(tmp_path: Path) -> None:
    """Two diseases and a drug or two: nothing to learn, and nothing that breaks."""
    drug, other = node("drug", 0), node("drug", 1)
    facts: list[Fact] = [(drug, "indication", node("disease", i)) for i in range(2)]
    for more in ([], [(other, "palliation", node("disease", 0))]):
        rows = ranked(embed([*facts, *more], tmp_path, "kg"), "disease 1", top=1)
        assert [row["drug_name"] for row in rows] == ["drug 1"][: len(more)]


def test_names_are_shown_as_they_are(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = rank_drugs(model, disease="disease 1", top=1)
    record["drugs"][0]["drug_name"] = "[red] acid"
    show_ranking(record)
    assert "[red] acid" in capsys.readouterr().out


def test_synonyms_name_one_disease_or_many(model: Path, tmp_path: Path) -> None:
    synonyms = tmp_path / "synonyms.csv"
    asked = node("disease", 1)
    synonyms.write_text(f"name,id\nThe first,{asked.source}:000{asked.id}\n")
    assert rank_drugs(model, disease="the FIRST", synonyms=synonyms) == rank_drugs(
        model, disease=asked.name
    )
    (tmp_path / "asked.txt").write_text("the first\n")
    output = tmp_path / "ranks.csv"
    rank_drugs(model, diseases=tmp_path / "asked.txt", output=output, synonyms=synonyms)
    assert set(pl.read_csv(output)["disease_name"]) == {asked.name}
    with pytest.raises(InputError, match=r"output .* would overwrite an input"):
        rank_drugs(model, diseases="all", output=synonyms, synonyms=synonyms)
