"""Synthetic graphs have PrimeKG's shape and pitfalls, depend on the seed, and have a mechanism."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from clinical_drug_discovery.graph.read import read_graph
from clinical_drug_discovery.lib import synthesize as synthetic
from clinical_drug_discovery.lib._synthetic.large_graph import NODE_TYPES as NODES_OF_LARGE
from clinical_drug_discovery.lib._synthetic.primekg_shape import (
    INDICATION_NOISE,
    NODE_TYPES,
    RELATIONS,
)
from clinical_drug_discovery.lib.synthesize import SynthesisReport, synthesize_graph
from clinical_drug_discovery.system.errors import InputError

SCALE = 0.02
# PrimeKG's counts, written out again to find mistakes in the module's tables.
NODES = {
    "biological_process": 28_642,
    "gene/protein": 27_671,
    "disease": 17_080,
    "effect/phenotype": 15_311,
    "anatomy": 14_035,
    "molecular_function": 11_169,
    "drug": 7_957,
    "cellular_component": 4_176,
    "pathway": 2_516,
    "exposure": 818,
}
ROWS = """anatomy_protein_present 3036406; drug_drug 2672628; protein_protein 642150;
disease_phenotype_positive 300634; bioprocess_protein 289610; cellcomp_protein 166804;
disease_protein 160822; molfunc_protein 139060; drug_effect 129568; bioprocess_bioprocess 105772;
pathway_protein 85292; disease_disease 64388; contraindication 61350; drug_protein 51306;
anatomy_protein_absent 39774; phenotype_phenotype 37472; anatomy_anatomy 28064;
molfunc_molfunc 27148; indication 18776; cellcomp_cellcomp 9690; phenotype_protein 6660;
off-label use 5136; pathway_pathway 5070; exposure_disease 4608; exposure_exposure 4140;
exposure_bioprocess 3250; exposure_protein 2424; disease_phenotype_negative 2386;
exposure_molfunc 90; exposure_cellcomp 20"""
HEADER = (
    "relation,display_relation,x_index,x_id,x_type,x_name,x_source,"
    "y_index,y_id,y_type,y_name,y_source"
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[SynthesisReport, pl.DataFrame]:
    path = tmp_path_factory.mktemp("synthetic") / "kg.csv"
    report = synthesize_graph(path, scale=SCALE)
    return report, _read(path)


def _read(path: Path) -> pl.DataFrame:
    if path.suffix == ".parquet":
        return pl.read_parquet(path)
    return pl.read_csv(path, infer_schema=False).cast({"x_index": pl.Int64, "y_index": pl.Int64})


def _neighbours(rows: pl.DataFrame, relation: str, x_type: str) -> dict[int, set[int]]:
    wanted = rows.filter(pl.col("relation") == relation, pl.col("x_type") == x_type)
    grouped = wanted.group_by("x_index").agg("y_index")
    return {x: set(ys) for x, ys in grouped.iter_rows()}


def test_counts_follow_primekg(made: tuple[SynthesisReport, pl.DataFrame]) -> None:
    report, rows = made
    nodes = rows.group_by("x_type").agg(pl.col("x_index").n_unique())
    assert dict(nodes.iter_rows()) == report.num_nodes_by_type
    for name, count in NODES.items():
        assert report.num_nodes_by_type[name] == max(synthetic.MIN_NODES, round(count * SCALE))
    relations = dict(rows.group_by("relation").len().iter_rows())
    assert relations == report.num_rows_by_relation
    wanted = dict(entry.strip().rsplit(" ", 1) for entry in ROWS.split(";"))
    assert set(wanted) == set(relations)
    for name, rows_at_1 in wanted.items():
        goal = int(rows_at_1) * SCALE
        if name in report.capped_relations:
            assert relations[name] < 0.99 * goal
        else:
            assert relations[name] == pytest.approx(goal, rel=0.01, abs=2), name
    assert report.capped_relations == ("drug_drug",)
    assert (report.num_nodes, report.num_rows) == (
        sum(report.num_nodes_by_type.values()),
        len(rows),
    )
    assert report.num_rows == 2 * report.num_facts


def test_tables_are_primekg_at_scale_1() -> None:
    assert {name: row[0] for name, row in NODE_TYPES.items()} == NODES
    rows = "; ".join(f"{name} {relation.rows}" for name, relation in RELATIONS.items())
    assert sorted(rows.split("; ")) == sorted(ROWS.replace("\n", " ").split("; "))


def test_each_fact_is_there_once_in_both_directions(
    made: tuple[SynthesisReport, pl.DataFrame],
) -> None:
    report, rows = made
    assert Path(report.output).read_text(encoding="utf-8").split("\n", 1)[0] == HEADER
    forward = rows.select("relation", "display_relation", "x_index", "y_index")
    mirror = forward.rename({"x_index": "y_index", "y_index": "x_index"}).select(forward.columns)
    assert forward.n_unique() == len(rows)
    assert forward.sort(forward.columns).equals(mirror.sort(forward.columns))
    assert not rows.filter(pl.col("x_index") == pl.col("y_index")).height


def test_only_source_type_and_id_together_identify_a_node(
    made: tuple[SynthesisReport, pl.DataFrame],
) -> None:
    report, rows = made
    nodes = rows.select(pl.col("^x_.*$").name.map(lambda name: name[2:])).unique()
    assert nodes["index"].sort().to_list() == list(range(report.num_nodes))  # one id, one name each
    assert nodes.select("source", "type", "id").n_unique() == report.num_nodes
    assert nodes["id"].n_unique() < 0.9 * report.num_nodes
    numbers = {kind: set(nodes.filter(type=kind)["id"]) for kind in ("gene/protein", "disease")}
    assert numbers["gene/protein"] & numbers["disease"]
    assert nodes["name"].n_unique() < report.num_nodes
    for mark in (",", '"'):
        assert nodes["name"].str.contains(mark, literal=True).any()
    sources = {"NCBI", "DrugBank", "MONDO", "HPO", "GO", "REACTOME", "UBERON", "CTD"}
    assert set(nodes["source"]) == sources
    # A node has the same fields as x and as y.
    assert rows.select(pl.col("^y_.*$").name.map(lambda name: name[2:])).unique().height == len(
        nodes
    )


def test_degrees_are_heavy_tailed_and_hubs_are_hubs_in_several_relations(
    made: tuple[SynthesisReport, pl.DataFrame],
) -> None:
    _, rows = made
    hubs = {
        "anatomy_protein_present": "anatomy",
        "protein_protein": "gene/protein",
        "disease_protein": "disease",
        "drug_effect": "drug",
    }
    for name, kind in hubs.items():
        degrees = (
            rows.filter(relation=name, x_type=kind).group_by("x_index").len()["len"].to_numpy()
        )
        assert degrees.max() > 4 * np.median(degrees), name
    genes = rows.filter(x_type="gene/protein")
    counts = [
        genes.filter(relation=name).group_by("x_index").len().rename({"len": name})
        for name in ("protein_protein", "anatomy_protein_present")
    ]
    both = counts[0].join(counts[1], on="x_index")
    ranks = pl.corr("protein_protein", "anatomy_protein_present", method="spearman")
    assert both.select(ranks).item() > 0.2


@pytest.mark.parametrize("scale", [0.01, 0.05])
def test_indications_follow_targets_to_disease_genes(tmp_path: Path, scale: float) -> None:
    report = synthesize_graph(tmp_path / "kg.parquet", scale=scale, seed=1)
    rows = _read(tmp_path / "kg.parquet")
    targets = _neighbours(rows, "drug_protein", "drug")
    genes = _neighbours(rows, "disease_protein", "disease")
    pathways = _neighbours(rows, "pathway_protein", "gene/protein")

    def share(pairs: list[tuple[int, int]]) -> float:
        """Return the fraction of pairs that share a gene or a pathway."""
        met = 0
        for drug, disease in pairs:
            ours, theirs = targets[drug], genes.get(disease, set())
            ours_in, theirs_in = (
                set().union(*(pathways.get(gene, set()) for gene in side))
                for side in (ours, theirs)
            )
            met += bool(ours & theirs or ours_in & theirs_in)
        return met / len(pairs)

    drawn = rows.filter(relation="indication", x_type="drug").select("x_index", "y_index")
    rng = np.random.default_rng(0)
    drugs, diseases = list(targets), sorted(rows.filter(x_type="disease")["x_index"].unique())
    chance = list(zip(rng.choice(drugs, 2000), rng.choice(diseases, 2000), strict=True))
    found = share(drawn.rows())
    assert found >= 1 - report.indication_noise - 0.02
    assert share(chance) < found / 3
    planted, noise = report.num_mechanistic_indications, report.num_noise_indications
    assert planted + noise == len(drawn)
    assert noise / len(drawn) == pytest.approx(INDICATION_NOISE, abs=0.01)


def test_the_seed_alone_decides_the_bytes(tmp_path: Path) -> None:
    def content(name: str, seed: int) -> bytes:
        synthesize_graph(tmp_path / name, scale=0.01, seed=seed)
        return (tmp_path / name).read_bytes()

    assert content("a.csv", 3) == content("b.csv", 3) != content("c.csv", 4)
    for suffix in (".csv.gz", ".csv.zst", ".parquet"):
        assert content(f"a{suffix}", 3) == content(f"b{suffix}", 3)
        assert _read(tmp_path / f"a{suffix}").equals(_read(tmp_path / "a.csv"))


def test_the_large_graph_has_its_nodes_and_distinct_facts(tmp_path: Path) -> None:
    path = tmp_path / "kg.parquet"
    report = synthesize_graph(path, preset="large", scale=0.0005, seed=1)
    rows, graph = pl.read_parquet(path), read_graph(path)
    assert report.num_nodes == graph.num_nodes == sum(NODES_OF_LARGE.values()) * 0.0005 == 10_000
    assert (report.num_rows, report.capped_relations) == (rows.height, ())
    assert rows.height == pytest.approx(50_000, rel=0.001)
    assert graph.report.num_duplicate_rows == graph.report.num_self_loops == 0
    assert graph.report.num_mirrored_facts == report.num_facts == graph.num_edges // 2
    assert dict(rows.group_by("relation").len().iter_rows()) == report.num_rows_by_relation
    assert graph.nodes["node_name"].equals(graph.nodes["node_id"].alias("node_name"))
    assert graph.vocabulary.indication == "indication"
    degrees = np.sort(graph.degrees)
    assert degrees[-1] > 20 * np.median(degrees)
    synthesize_graph(tmp_path / "again.parquet", preset="large", scale=0.0005, seed=1)
    assert (tmp_path / "again.parquet").read_bytes() == path.read_bytes()
    smallest = synthesize_graph(tmp_path / "kg.csv", preset="large", scale=1e-9)
    assert set(smallest.num_nodes_by_type.values()) == {synthetic.MIN_NODES}


def test_the_smallest_graph_has_every_type_and_relation(tmp_path: Path) -> None:
    report = synthesize_graph(tmp_path / "kg.csv", scale=1e-9)
    assert set(report.num_nodes_by_type.values()) == {synthetic.MIN_NODES}
    assert min(report.num_rows_by_relation.values()) == 2
    assert _read(tmp_path / "kg.csv")["x_index"].n_unique() == report.num_nodes


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("kg.csv", {"scale": -1.0}, r"scale \(got -1.0\) must be .* above 0 and at most 64"),
        ("kg.csv", {"scale": 0}, r"scale \(got 0\)"),
        ("kg.csv", {"scale": float("nan")}, r"scale \(got nan\)"),
        ("kg.csv", {"scale": float("inf")}, r"scale \(got inf\)"),
        ("kg.csv", {"scale": 65.0}, r"scale \(got 65.0\)"),
        ("kg.csv", {"scale": "1"}, r"scale \(got '1'\)"),
        ("kg.csv", {"seed": -1}, r"seed \(got -1\) must be a whole number of at least 0"),
        ("kg.csv", {"seed": 0.5}, r"seed \(got 0.5\)"),
        (
            "kg.csv",
            {"preset": "hetionet"},
            r"preset \(got 'hetionet'\) must be one of primekg, large",
        ),
        ("kg.tsv", {}, r"output \(got '.*kg.tsv'\) must end in one of .csv, .csv.gz"),
    ],
)
def test_errors_name_the_rule_and_leave_no_file(
    tmp_path: Path, name: str, options: dict[str, float], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        synthesize_graph(tmp_path / name, **options)  # type: ignore[arg-type] # wrong on purpose
    assert not list(tmp_path.iterdir())


def test_a_failed_write_keeps_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "kg.csv"
    path.write_text("old")
    with pytest.raises(InputError, match=r"kg\.csv exists already.*--overwrite"):
        synthesize_graph(path, scale=0.001)
    monkeypatch.setattr("os.replace", full_disk)
    with pytest.raises(OSError, match="No space left"):
        synthesize_graph(path, scale=0.001, overwrite=True)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
