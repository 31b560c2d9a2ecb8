"""A small file does not become a large one, and a row has an end."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
from graphs import Fact, to_rows

from clinical_drug_discovery.graph.read import read_graph
from clinical_drug_discovery.graph.reading import unpacking
from clinical_drug_discovery.graph.reading.unpacking import Limit, check_rows, zstd_bound
from clinical_drug_discovery.graph.source import ReadSettings
from clinical_drug_discovery.system.errors import InputError

SIZE = 3 * 2**20


def zipped(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("kg.csv", content)
    return buffer.getvalue()


def as_zstd(content: bytes, directory: Path) -> bytes:
    """Compress lines with zstd; Python 3.11 cannot, polars can."""
    path = directory / "plain.csv.zst"
    lines = pl.Series(content.decode().splitlines()).to_frame("line")
    options: dict[str, Any] = {"compression": "zstd", "check_extension": False}
    lines.lazy().sink_csv(path, include_header=False, quote_style="never", **options)
    return path.read_bytes()


@pytest.fixture(params=["bz2", "xz", "gz", "zip", "zip of xz", "zst"])
def packed(request: pytest.FixtureRequest, tmp_path: Path, facts: list[Fact]) -> Path:
    """A graph whose rows repeat until they fill 3 MiB, compressed to a few kilobytes."""
    text = to_rows(facts).write_csv()
    header, rows = text.split("\n", 1)
    content = f"{header}\n{rows * (SIZE // len(rows) + 1)}".encode()
    how: dict[str, Callable[[bytes], bytes]] = {
        "bz2": bz2.compress, "xz": lzma.compress, "gz": gzip.compress, "zip": zipped,
        "zip of xz": lambda data: zipped(lzma.compress(data)),
        "zst": lambda data: as_zstd(data, tmp_path),
    }  # fmt: skip
    path = tmp_path / "kg.csv"
    path.write_bytes(how[request.param](content))
    return path


def test_the_limit_holds_for_every_compression_and_a_flag_raises_it(packed: Path) -> None:
    small = ReadSettings(max_unpacked_gib=2**-10)
    with pytest.raises(InputError, match=r"kg.csv is larger than .*--max-unpacked-gib"):
        read_graph(packed, small)
    raised = read_graph(packed, ReadSettings(max_unpacked_gib=2**-8))
    assert raised.num_edges == read_graph(packed).num_edges > 0


def test_the_default_limit_follows_the_size_of_the_file(tmp_path: Path) -> None:
    for size, most in ((10**5, 2**28), (2**23, 200 * 2**23), (2**40, 2**36)):
        limit = Limit(tmp_path, size, None)
        limit.check(most)
        with pytest.raises(InputError, match="max_unpacked_gib"):
            limit.check(most + 1)


def test_the_limit_of_the_standard_input_follows_its_size(
    tmp_path: Path, facts: list[Fact], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unpacking, "_LEAST", 10)
    text = to_rows(facts).write_csv().encode()
    for content in (text, bz2.compress(text)):
        monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(content)))
        assert read_graph("-").num_edges > 0


def test_a_bomb_of_zstd_is_measured_without_decompression(tmp_path: Path) -> None:
    header = b"\x28\xb5\x2f\xfd\x00\x58"  # a window of 2 MiB, no size, no checksum
    repeated = ((2**17 << 3) | 2).to_bytes(3, "little") + b"a"  # one byte, 128 KiB times
    last = ((10 << 3) | 1).to_bytes(3, "little") + b"0123456789"
    frame = header + repeated * 20_000 + last
    skippable = 0x184D2A53.to_bytes(4, "little") + (5).to_bytes(4, "little") + b"other"
    path = tmp_path / "kg.csv"
    path.write_bytes(frame + skippable + frame)
    assert zstd_bound(path) == 2 * (20_000 * 2**17 + 10)
    with pytest.raises(InputError, match=r"larger than 0.25 GiB.*least limit"):
        read_graph(path)
    for cut in (5, 6, 8, len(frame) - 1):  # a damaged file ends the walk
        path.write_bytes(frame[:cut])
        assert zstd_bound(path) <= 20_000 * 2**17 + 10


def test_an_endless_row_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacking, "MAX_ROW", 2**17)
    path = tmp_path / "kg.csv"
    for size, refused in ((2**17 - 20, False), (2**18 + 20, True)):
        for row in (0, 3):
            lines = [b"head,relation,tail", b"a,b,c", b"a,b,d", b"a,b,e"]
            lines[row] = b"x" * size
            path.write_bytes(b"\n".join(lines))
            if refused:
                with pytest.raises(InputError, match=r"kg.csv has a row of more than .* MiB"):
                    check_rows(path, path)
            else:
                check_rows(path, path)
    with pytest.raises(InputError, match=r"kg.csv has a row of more than"):
        read_graph(path)


def test_blank_lines_leave_no_rows_in_memory(tmp_path: Path, facts: list[Fact]) -> None:
    path = tmp_path / "kg.csv"
    text = to_rows(facts).write_csv()
    path.write_text(text + "\n" * 300_000)
    graph = read_graph(path)
    assert graph.report.num_skipped_rows == 300_000
    path.write_text(text)
    assert graph.num_edges == read_graph(path).num_edges
