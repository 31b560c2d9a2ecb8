"""Any bytes are a graph, or are refused with one line: never another error, never an endless read.

Hypothesis invents the inputs. Its choices are fixed by the test itself, so the suite is
deterministic; the fuzzers in `tests/fuzz` look further.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import polars as pl
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clinical_drug_discovery.graph.read import read_graph
from clinical_drug_discovery.graph.synonyms import table_rows
from clinical_drug_discovery.models.embeddings_file import COLUMNS
from clinical_drug_discovery.models.read_embeddings import read_embeddings
from clinical_drug_discovery.system.errors import InputError
from clinical_drug_discovery.system.untrusted.text import printable, shortened

bounded = settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
Result = TypeVar("Result")
HEADER = "relation,x_id,x_type,x_name,x_source,y_id,y_type,y_name,y_source"
FIELDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(
    ["drug", "1", "1.0", "NA", '"', '""', ",", "\n", "\r", "\0", "=1", "\x1b[2J", "MONDO:1"]
)


def read_or_refused(read: Callable[[], Result], name: str) -> Result | None:
    """Return the result, or None if the file was refused by a message with its name."""
    message = name
    try:
        return read()
    except InputError as error:
        message = str(error)
    assert name in message
    return None


def quoted(field: str) -> str:
    return f'"{field.replace(chr(34), chr(34) * 2)}"'


@bounded
@given(rows=st.lists(st.lists(FIELDS, min_size=9, max_size=9), min_size=1, max_size=6))
def test_a_table_of_any_texts_keeps_its_nodes_or_is_refused(
    tmp_path: Path, rows: list[list[str]]
) -> None:
    path = tmp_path / "kg.csv"
    text = "\n".join([HEADER, *(",".join(map(quoted, row)) for row in rows)]) + "\n"
    path.write_text(text, encoding="utf-8", newline="")
    graph = read_or_refused(lambda: read_graph(path), path.name)
    if graph is None:
        return
    wanted = {(row[at + 3], row[at + 1], row[at]) for row in rows for at in (1, 5)}
    found = set(graph.nodes.select("node_source", "node_type", "node_id").iter_rows())
    assert found <= wanted


@bounded
@given(data=st.binary(max_size=400), packed=st.booleans(), header=st.booleans())
def test_any_bytes_are_a_graph_or_refused(
    tmp_path: Path, data: bytes, packed: bool, header: bool
) -> None:
    path = tmp_path / "kg"
    content = f"{HEADER}\n".encode() * header + data
    path.write_bytes(gzip.compress(content) if packed else content)
    graph = read_or_refused(lambda: read_graph(path), path.name)
    assert graph is None or graph.num_edges > 0


KINDS = (
    st.floats(width=32), st.integers(-(2**31), 2**31), st.text(max_size=5), st.booleans(),
    st.lists(st.floats(width=32), max_size=3), st.lists(st.text(max_size=2), max_size=2),
    st.sampled_from(["1", "[1,2]", "[3.5,1e99]", "nan", "[ 1 2 ]"]),
)  # fmt: skip
COLUMN = st.one_of(*(st.lists(st.none() | kind, min_size=2, max_size=2) for kind in KINDS))


@bounded
@given(
    columns=st.fixed_dictionaries(dict.fromkeys(COLUMNS, COLUMN)),
    suffix=st.sampled_from([".csv", ".parquet"]),
)
def test_tables_of_any_values_are_embeddings_or_refused(
    tmp_path: Path, columns: dict[str, list[object]], suffix: str
) -> None:
    path = tmp_path / f"e{suffix}"
    table = pl.DataFrame({name: pl.Series(v, strict=False) for name, v in columns.items()})
    if suffix == ".csv":
        texts = [pl.Series(name, list(map(str, v))) for name, v in columns.items()]
        pl.DataFrame(texts).write_csv(path)
    else:
        table.write_parquet(path)
    found = read_or_refused(lambda: read_embeddings(path), path.name)
    if found is None:
        return
    nodes, values = found
    assert np.isfinite(values).all()
    assert len(nodes) == len(values) == 2
    assert nodes["node_index"].n_unique() == 2


@bounded
@given(text=st.text(max_size=300))
def test_any_text_is_a_list_or_refused_and_is_shown_harmlessly(tmp_path: Path, text: str) -> None:
    path = tmp_path / "list.csv"
    path.write_text(text, encoding="utf-8", errors="surrogatepass", newline="")
    rows = read_or_refused(lambda: list(table_rows("synonyms", path)), path.name) or []
    assert [row for row, _ in rows] == sorted({row for row, _ in rows})
    assert not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in printable(text))
    assert printable(printable(text)) == printable(text)
    assert len(shortened(f"x (got {text!r}) y")) < 1500
