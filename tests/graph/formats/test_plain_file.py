"""Compressed and encoded files hold the same graph; damaged ones and documents are refused."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from graphs import Fact, to_rows, to_triples

from clinical_drug_discovery.graph.read import read_graph
from clinical_drug_discovery.system.errors import InputError


def zipped(*members: tuple[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in members:
            archive.writestr(name, text)
    return content.getvalue()


def encrypted() -> bytes:
    content = bytearray(zipped(("kg.csv", b"text")))
    content[content.index(b"PK\x01\x02") + 8] |= 1  # the flag of the member
    return bytes(content)


ENCODE: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zip": lambda text: zipped(("folder/", b""), ("folder/kg.csv", text), ("__MACOSX/x", b"x")),
    "bz2 in zip": lambda text: zipped(("kg.csv.bz2", bz2.compress(text))),
    "gzip in gzip": lambda text: gzip.compress(gzip.compress(text)),
    "UTF-16": lambda text: text.decode().encode("utf-16"),
    "UTF-16, big end first": lambda text: b"\xfe\xff" + text.decode().encode("utf-16-be"),
    "UTF-16 in gzip": lambda text: gzip.compress(text.decode().encode("utf-16")),
    "UTF-32": lambda text: text.decode().encode("utf-32"),
    "byte order mark": lambda text: b"\xef\xbb\xbf" + text,
    "CR LF": lambda text: text.replace(b"\n", b"\r\n"),
    "lone CR": lambda text: text.replace(b"\n", b"\r"),
    "lone CR in gzip": lambda text: gzip.compress(text.replace(b"\n", b"\r")),
    "tabs": lambda text: text.replace(b",", b"\t"),
    "semicolons": lambda text: text.replace(b",", b";"),
    "pipes in xz": lambda text: lzma.compress(text.replace(b",", b"|")),
}


@pytest.mark.parametrize("name", ENCODE)
def test_encoded_files_hold_the_same_graph(tmp_path: Path, facts: list[Fact], name: str) -> None:
    rows = to_rows(facts)
    rows.write_csv(tmp_path / "kg.csv")
    text = rows.with_columns(x_name="x_name").write_csv().replace("disease 0", "Sjögren").encode()
    (tmp_path / "plain.csv").write_bytes(text)
    (tmp_path / "any name").write_bytes(ENCODE[name](text))
    graph, plain = read_graph(tmp_path / "any name"), read_graph(tmp_path / "plain.csv")
    assert to_triples(graph) == to_triples(plain)
    assert graph.nodes.equals(plain.nodes)
    assert graph.report.warnings == ()


def test_the_standard_input(
    tmp_path: Path, facts: list[Fact], monkeypatch: pytest.MonkeyPatch
) -> None:
    to_rows(facts).write_csv(tmp_path / "kg.csv")
    with (tmp_path / "kg.csv").open() as file:
        monkeypatch.setattr(sys, "stdin", file)
        graph = read_graph("-")
    assert to_triples(graph) == to_triples(read_graph(tmp_path / "kg.csv"))
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(InputError, match=r"- \(the standard input\) must be open"):
        read_graph("-")


@pytest.mark.parametrize("name", ["gzip", "bz2", "xz", "zip", "UTF-16", "UTF-32"])
def test_a_file_that_is_cut_short_is_refused(tmp_path: Path, facts: list[Fact], name: str) -> None:
    whole = ENCODE[name](to_rows(facts).write_csv().encode())
    path = tmp_path / "kg.csv"
    for end in (len(whole) // 2 - 1, len(whole) - 5):
        path.write_bytes(whole[:end])
        with pytest.raises(InputError, match=r"kg.csv.*(damaged|cut short|missing)"):
            read_graph(path)


def test_a_last_line_without_a_line_break_gives_a_warning(
    tmp_path: Path, facts: list[Fact]
) -> None:
    text = to_rows(facts).write_csv()
    cut = text[:-1].encode()
    for content in (cut, bz2.compress(cut), gzip.compress(cut)):
        (tmp_path / "kg.csv").write_bytes(content)
        (warning,) = read_graph(tmp_path / "kg.csv").report.warnings
        assert "the last row does not end with a line break" in warning


@pytest.mark.parametrize("name", ["bz2", "xz"])
def test_a_damaged_second_stream_is_refused(tmp_path: Path, facts: list[Fact], name: str) -> None:
    text = to_rows(facts).write_csv().encode()
    half = text.index(b"\n", len(text) // 2) + 1
    first, second = ENCODE[name](text[:half]), ENCODE[name](text[half:])
    path = tmp_path / "kg.csv"
    path.write_bytes(first + b"\0" * 4 + second + b"\0" * 4)
    assert read_graph(path).report.num_rows == len(facts)
    for damaged in (first + b"x" + second[1:], first + second[:-9], first + b"text"):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"kg.csv is truncated or damaged"):
            read_graph(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (zipped(("a.csv", b"a"), ("b.csv", b"b")), r"exactly one member; it has 2: a.csv, b.csv"),
        (zipped(), r"exactly one member; it has 0: none"),
        (encrypted(), "must not be encrypted"),
        (b"7z\xbc\xaf'\x1c....", "a 7z archive"),
        (b"\0" * 257 + b"ustar" + b"\0" * 100, "a tar archive"),
        ("relation,x_id".encode("utf-16-le"), "many NUL bytes"),
        (b"SQLite format 3\0", "SQLite"),
    ],
)
def test_other_files_are_refused_by_their_content(
    tmp_path: Path, content: bytes, message: str
) -> None:
    (tmp_path / "kg.csv").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_graph(tmp_path / "kg.csv")


def test_the_copies_are_removed(
    tmp_path: Path, facts: list[Fact], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    text = to_rows(facts).write_csv().encode()
    for content in (bz2.compress(text), bz2.compress(text[:-40])):
        (tmp_path / "kg.csv").write_bytes(content)
        if content is not None and content == bz2.compress(text):
            read_graph(tmp_path / "kg.csv")
        else:
            with pytest.raises(InputError):
                read_graph(tmp_path / "kg.csv")
        assert list((tmp_path / "tmp").iterdir()) == []
