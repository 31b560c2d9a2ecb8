"""A file of synonyms is read as it is, and a mistake in it is named with its row."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from graphs import LOOK_UP_NODES as NODES

from clinical_drug_discovery.graph.node_lookup import Synonym, find_node
from clinical_drug_discovery.graph.synonyms import read_synonyms
from clinical_drug_discovery.system.errors import InputError

ASA = Synonym("acetylsalicylic acid", "DrugBank", "drug", "DB1")
BRONCHIAL = Synonym("bronchial, asthma", "MONDO", "disease", "1234")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("s.csv", b'name,id\nacetylsalicylic acid,DB1\n"bronchial, asthma",MONDO:0001234\n'),
        ("s.csv", b'\xef\xbb\xbfid,note,name\r\nDRUGBANK:db1,,acetylsalicylic acid\r\n\r\n'
                  b'mondo:1234,x,"bronchial, asthma"'),
        ("s.TSV", b"name\tid\n acetylsalicylic acid \tdb1\nbronchial, asthma\tMONDO_0001234\n"),
    ],
)  # fmt: skip
def test_reads_csv_and_tsv(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    synonyms = read_synonyms(tmp_path / name, NODES)
    assert synonyms == [ASA, BRONCHIAL]
    assert find_node(NODES, "Acetylsalicylic  ACID", synonyms=synonyms) == 0


def test_no_file_has_no_synonyms() -> None:
    assert read_synonyms(None, NODES) == []


def test_ids_that_the_graph_lacks_are_counted_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "s.csv"
    file.write_text("name,id\na,DB77\nacetylsalicylic acid,DB1\nb,asthma\n")
    with caplog.at_level(logging.WARNING, "clinical_drug_discovery"):
        assert read_synonyms(file, NODES) == [ASA]  # the name of a node is not an id
    assert [record.getMessage() for record in caplog.records] == [
        f"synonyms (got {file}): 2 of 3 rows were skipped, because the graph lacks their ids; "
        "the first is 'DB77' in row 2"
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("s.txt", b"name,id\n", r"must be a \.csv or \.tsv file"),
        ("s.csv", b"", r"columns name and id, each once; the header has no columns"),
        ("s.csv", b"a,DB1\n", r"the header has 'a', 'DB1'"),
        ("s.csv", b"name,id,id\na,DB1,DB2\n", r"each once; the header has 'name', 'id', 'id'"),
        ("s.tsv", b"name,id\na,DB1\n", r"the header has 'name,id'"),
        ("s.csv", b"name,id\n", r"at least one row below the header"),
        ("s.csv", b"name,id\na,DB1\nb\n", r"row 3 of .*s\.csv: 1 field, but the header has 2"),
        ("s.csv", b"name,id\na,DB1\n\n,DB1\n", r"row 4 of .*: name must not be empty"),
        ("s.csv", b"name,id\na, \n", r"row 2 of .*: id must not be empty"),
        ("s.csv", b"name,id\na,DB1\nb,1234\n", r"row 3 .*: id \(got '1234'\) is ambiguous; .*NCBI"),
        ("s.csv", b'name,id\na,DB1\n"b,DB2\nc,DB9\n', r"row 3 of .*s\.csv: unexpected end of data"),
        ("s.csv", "name,id\na,DB1\n".encode("utf-16"), r"must be UTF-8"),
        ("none.csv", None, r"cannot be read: No such file"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"^synonyms.*{message}"):
        read_synonyms(tmp_path / name, NODES)
