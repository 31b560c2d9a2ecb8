"""Hetionet: its table of edges (source, metaedge, target) with a table of nodes, and its JSON."""

from __future__ import annotations

import gzip
import json
from array import array
from collections.abc import Iterator
from typing import IO, Any

import numpy as np
import polars as pl

from ...system.errors import InputError
from .head import GZIP_MAGIC, ZSTD_MAGIC, Head
from .node_table import ROW, distinct_nodes, joined_table, read_nodes, require
from .table import KEY, SKIP, NodeRules, Table

_ENDS = ("source", "metaedge", "target")
_BLOCK = 2**20
_SPACE = " \t\r\n"
_AFTER = "},]" + _SPACE  # characters that end a number
_MAX_VALUE = 2**24  # characters of one value, such as a node; a longer value is not a node


class HetionetTables:
    """`hetionet-v1.0-edges.sif.gz` and `hetionet-v1.0-nodes.tsv` (id, name, kind).

    Ids are written as `Gene::9021`: the id of the node is 9021, and its type is its kind. Relations
    are abbreviations, such as CtD (Compound treats Disease). The source is the prefix of the id.
    """

    name = "Hetionet edges and nodes"
    has_nodes = True

    def recognizes(self, head: Head) -> bool:
        """Return True if the header is source, metaedge, target."""
        return {*_ENDS} <= {*head.columns}

    def tables(self, edges: Head, nodes: Head | None, rules: NodeRules) -> Iterator[Table]:
        """Return the table of the file; see `Format.tables`."""
        assert nodes is not None
        require(edges, _ENDS)
        require(nodes, ("id", "kind"))
        key = pl.col("id").cast(pl.String)
        id_ = pl.coalesce(key.str.extract(r"(?s)^.+?::(.+)$", 1), key)
        name = pl.col("name") if "name" in nodes.columns else pl.lit(None)
        columns = {"key": key, "id": id_, "type": pl.col("kind"), "name": name}
        table = read_nodes(nodes, rules, columns, nodes.scan())
        yield from joined_table(self.name, edges, table, _ENDS, edges.scan())


class HetionetJSON:
    """`hetionet-v1.0.json`: an object with a list of nodes and a list of edges.

    The file is parsed object by object, and an edge takes 12 bytes of memory. The "row" of an edge
    or node in messages is its position in its list, from 1.
    """

    name = "Hetionet JSON"
    has_nodes = False

    def recognizes(self, head: Head) -> bool:
        """Return True for a JSON object with Hetionet's names in its first lines."""
        text = "\n".join(head.lines).lstrip()
        marks = ('"metanode_kinds"', '"metaedge_tuples"', '"source_id"')
        return text.startswith("{") and any(mark in text for mark in marks)

    def tables(self, edges: Head, nodes: Head | None, rules: NodeRules) -> Iterator[Table]:
        """Return the table of the file; see `Format.tables`."""
        found = _Parsed(edges)
        table = distinct_nodes(edges, rules, found.nodes())
        hint = f"the node is not in the list of nodes of {edges.path.name}"
        yield Table(
            path=edges.path,
            format=self.name,
            frame=found.edges().lazy().with_columns(pl.lit(False).alias(SKIP)),
            first_row=1,
            filled=("name", "source"),
            hint=hint,
            nodes=table.frame,
            warnings=table.warnings,
        )


class _Parsed:
    """The nodes and edges of a JSON file; edges hold the numbers of nodes and relations."""

    def __init__(self, head: Head) -> None:
        self._numbers: dict[tuple[str | None, str | None], int] = {}
        self._relations: dict[str | None, int] = {}
        self._rows: list[tuple[int, str | None]] = []  # number and name of each node
        self._x, self._y, self._relation = array("i"), array("i"), array("i")
        with _open(head) as file:
            for name, value in _elements(head, file):
                if not isinstance(value, dict):
                    raise InputError(f"{head.path}: the list {name!r} must hold JSON objects")
                self._add(name, value)

    def _add(self, name: str, value: dict[str, Any]) -> None:
        if name == "nodes":
            number = self._number([value.get("kind"), value.get("identifier")])
            self._rows.append((number, _text(value.get("name"))))
            return
        self._x.append(self._number(value.get("source_id")))
        self._y.append(self._number(value.get("target_id")))
        kind = _text(value.get("kind"))
        self._relation.append(self._relations.setdefault(kind, len(self._relations)))

    def _number(self, pair: Any) -> int:
        """Return the number of the node (kind, identifier), or -1 if `pair` is not such a list."""
        if not isinstance(pair, list) or len(pair) != 2:
            return -1
        kind, identifier = map(_text, pair)
        return self._numbers.setdefault((kind, identifier), len(self._numbers))

    def nodes(self) -> pl.DataFrame:
        """Return the nodes, with the columns row, key, id, type and name."""
        pairs, numbers = list(self._numbers), [number for number, _ in self._rows]
        return pl.DataFrame(
            {
                ROW: range(1, len(numbers) + 1),
                KEY: pl.Series(numbers, dtype=pl.Int32),
                "id": pl.Series([pairs[number][1] for number in numbers], dtype=pl.String),
                "type": pl.Series([pairs[number][0] for number in numbers], dtype=pl.String),
                "name": pl.Series([name for _, name in self._rows], dtype=pl.String),
            }
        )

    def edges(self) -> pl.DataFrame:
        """Return the edges, with the columns x_key, relation and y_key."""
        names = pl.Series(list(self._relations), dtype=pl.String)
        relation = np.frombuffer(self._relation, np.int32)
        categories = pl.Enum(names.drop_nulls())
        column = names.cast(categories).gather(relation) if len(names) else names.cast(categories)
        ends = {
            f"x_{KEY}": np.frombuffer(self._x, np.int32),
            f"y_{KEY}": np.frombuffer(self._y, np.int32),
        }
        return pl.DataFrame(ends).with_columns(relation=column)


def _text(value: Any) -> str | None:
    """Return an identifier as text; 5345 and "5345" are the same."""
    return str(value) if isinstance(value, str | int | float) else None


def _open(head: Head) -> IO[str]:
    with head.plain.open("rb") as file:
        magic = file.read(4)
    if magic.startswith(ZSTD_MAGIC):
        raise InputError(f"{head.path} is JSON compressed with zstd; decompress it (zstd -d)")
    if magic.startswith(GZIP_MAGIC):
        return gzip.open(head.plain, "rt", encoding="utf-8-sig")
    return head.plain.open(encoding="utf-8-sig")


def _elements(head: Head, file: IO[str]) -> Iterator[tuple[str, Any]]:
    """Yield ("nodes" or "edges", element) for each element of the two lists of the object."""
    text = _Text(head, file)
    text.expect("{")
    seen: set[str] = set()
    while text.peek() != "}":
        name = text.value()
        text.expect(":")
        if name not in ("nodes", "edges"):
            text.value()
        else:
            if name in seen:
                raise InputError(f"{head.path}: the object has {name!r} more than once")
            seen.add(name)
            text.expect("[")
            while text.peek() != "]":
                yield name, text.value()
                if text.peek() != "]":
                    text.expect(",")
            text.expect("]")
        if text.peek() != "}":
            text.expect(",")
    text.expect("}")
    if text.peek():
        raise InputError(f"{head.path}: text follows the end of the JSON object")
    if missing := {"nodes", "edges"} - seen:
        raise InputError(f"{head.path}: the object lacks {', '.join(sorted(missing))}")


class _Text:
    """A JSON text of any size, of which a block is in memory."""

    def __init__(self, head: Head, file: IO[str]) -> None:
        self._path, self._file = head.path, file
        self._text, self._at, self._ended = "", 0, False
        self._decoder = json.JSONDecoder(object_pairs_hook=self._object)

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        """Return a JSON object; Python's parser would silently take the last of equal names."""
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise InputError(f"{self._path}: a JSON object has {twice!r} more than once: {found}")
        return found

    def peek(self) -> str:
        """Skip blanks and return the next character; empty at the end."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in _SPACE:
                self._at += 1
            if self._at < len(self._text) or self._ended:
                return self._text[self._at : self._at + 1]
            self._more()

    def expect(self, mark: str) -> None:
        """Skip a mark."""
        found = self.peek()
        if found != mark:
            raise self._error(f"{mark!r} must follow", found)
        self._at += 1

    def value(self) -> Any:
        """Return the next value."""
        found = self.peek()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
            except RecursionError:
                raise InputError(f"{self._path} is not read: JSON is nested too deeply") from None
            except json.JSONDecodeError as error:
                if self._ended:
                    rest = len(self._text) - error.pos
                    cut = rest < len("false") or error.msg.startswith("Unterminated string")
                    raise self._error("a JSON value must follow", "" if cut else found) from None
            except ValueError as error:  # an endless number
                raise InputError(f"{self._path} is not valid JSON: {error}") from None
            else:
                after = self._text[end : end + 1]
                # A number may go on in the next block, such as 1 as 1.5.
                if isinstance(value, int | float) and after not in _AFTER:
                    after = ""
                if after or self._ended:
                    self._at = end
                    return value
            if len(self._text) - self._at > _MAX_VALUE:
                raise InputError(
                    f"{self._path} is not read: a JSON value has more than {_MAX_VALUE:,} "
                    f"characters: {found!r}..."
                )
            self._more()

    def _more(self) -> None:
        try:
            block = self._file.read(_BLOCK)
        except (OSError, EOFError, UnicodeError) as error:
            raise InputError(f"{self._path} is truncated or damaged: {error}") from None
        self._text, self._at = self._text[self._at :] + block, 0
        self._ended = not block

    def _error(self, rule: str, found: str) -> InputError:
        if not found:
            return InputError(
                f"{self._path}: the JSON text ends too early (is the file cut short?)"
            )
        text = self._text[self._at : self._at + 40]
        return InputError(f"{self._path} is not valid JSON: {rule} before {text!r}")
