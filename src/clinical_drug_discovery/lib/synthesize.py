"""Write synthetic graphs: with PrimeKG's node types and a known drug mechanism, or a large one.

In the preset "primekg", only the numbers of nodes and facts follow PrimeKG. Each node is in one
group (a drug class, a disease family), and each group is in a main module and a second module
(biological mechanisms). The second module of a drug class determines many of its side effects. A
drug is indicated for a disease if a target of the drug is a gene of the disease, or has a pathway
in common with such a gene. It is contraindicated if a side effect of the drug is a phenotype of the
disease.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl
from polars.io.plugins import register_io_source

from ..system import disk
from ..system.arguments import plain_arguments
from ..system.errors import InputError
from ..system.files import atomic_path, check_new, check_writable
from ..system.log import part
from ..system.processes import alone, use_threads
from ._synthetic.large_graph import LargeGraph
from ._synthetic.primekg_shape import (
    COMPONENT,
    COVERING,
    FUNCTION,
    INDICATION_NOISE,
    LISTS,
    NODE_TYPES,
    NOISE,
    PROCESS,
    RELATIONS,
    STEMS,
    TREE,
    Relation,
)

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
#: A function that samples one neighbor of each node; -1 if the node is -1 or without neighbors.
Hop = Callable[[Ints], Ints]
SUFFIXES = (".csv", ".csv.gz", ".csv.zst", ".parquet")  # of the output
MIN_NODES = 10  # minimum number of nodes of each type, at any scale
MAX_DENSITY = 0.5  # largest fraction of node pairs that one relation may join
_CHUNK_ROWS = 65_536  # rows per chunk; a chunk takes about 10 MB
_COMPRESSIONS: dict[str, Literal["gzip", "zstd"]] = {".gz": "gzip", ".zst": "zstd"}

_LARGE = "large"
_PRESETS = ("primekg", _LARGE)  # files in _synthetic: primekg_shape.py, large_graph.py


@dataclass(frozen=True)
class SynthesisReport:
    """Number of nodes, rows and facts that `synthesize_graph` wrote."""

    num_nodes: int
    num_rows: int
    num_facts: int  #: number of distinct facts; each fact has two rows
    num_nodes_by_type: dict[str, int]
    num_rows_by_relation: dict[str, int]
    num_mechanistic_indications: int  #: indications that follow a path from drug to disease
    num_noise_indications: int  #: indications that are sampled by popularity alone
    indication_noise: float  #: intended fraction of noise among the indications
    capped_relations: tuple[str, ...]  #: relations that got fewer rows than asked for
    output: str  #: path of the file
    seconds: float  #: wall time, including writing


@plain_arguments
@alone()
@part("Writing a synthetic graph")
def synthesize_graph(
    output: str | Path,
    *,
    preset: str = "primekg",
    scale: float = 1.0,
    seed: int = 0,
    overwrite: bool = False,
) -> SynthesisReport:
    """Write a synthetic graph with PrimeKG's node types and relations.

    Args:
        output: file to write: .csv, .csv.gz, .csv.zst or .parquet.
        preset: graph whose numbers of nodes and rows are used: primekg, or large (20 million nodes
            without names, 100 million rows).
        scale: factor of the numbers of nodes and rows of the preset. In a small graph, relations
            with too few distinct pairs get fewer rows: see `capped_relations`.
        seed: random seed. The same preset, scale and seed give the same bytes.
        overwrite: replace the file if it exists.

    Raises:
        InputError: a parameter is invalid, or `output` cannot be written.

    Example:
        >>> from clinical_drug_discovery.lib.synthesize import synthesize_graph
        >>> synthesize_graph("kg.csv", scale=0.01).num_nodes
        1296
    """
    use_threads()
    began, path = time.perf_counter(), Path(output)
    _check_parameters(path, preset)
    check_new([path], overwrite)
    if preset == _LARGE:
        return _write_large(path, scale, seed, began)
    counts = {name: max(MIN_NODES, round(row[0] * scale)) for name, row in NODE_TYPES.items()}
    asked = {name: round(relation.rows * scale / 2) for name, relation in RELATIONS.items()}
    rng = np.random.default_rng(seed)
    sampler = _Sampler(rng, counts, scale)
    planted = {name: sampler.draw(name, num_facts) for name, num_facts in asked.items()}
    nodes = _name_nodes(rng, counts)
    _write(path, _stream_rows(nodes, sampler))
    num_rows = {name: 2 * pairs.shape[1] for name, pairs in sampler.facts.items()}
    return SynthesisReport(
        num_nodes=len(nodes),
        num_rows=sum(num_rows.values()),
        num_facts=sum(num_rows.values()) // 2,
        num_nodes_by_type=counts,
        num_rows_by_relation=num_rows,
        num_mechanistic_indications=planted["indication"],
        num_noise_indications=num_rows["indication"] // 2 - planted["indication"],
        indication_noise=INDICATION_NOISE,
        capped_relations=tuple(name for name in asked if num_rows[name] < 2 * asked[name]),
        output=str(path),
        seconds=time.perf_counter() - began,
    )


def _write(path: Path, rows: pl.LazyFrame) -> None:
    with atomic_path(path) as temporary, disk.create(temporary) as file:
        if path.suffix == ".parquet":
            rows.sink_parquet(file)
        else:
            rows.sink_csv(file, compression=_COMPRESSIONS.get(path.suffix, "uncompressed"))


def _write_large(path: Path, scale: float, seed: int, began: float) -> SynthesisReport:
    """Write the graph of the preset "large"; see `synthesize_graph`."""
    graph = LargeGraph(scale, seed, MIN_NODES)
    _write(path, graph.rows())
    num_facts = graph.num_facts
    return SynthesisReport(
        num_nodes=sum(graph.counts.values()),
        num_rows=2 * sum(num_facts.values()),
        num_facts=sum(num_facts.values()),
        num_nodes_by_type=graph.counts,
        num_rows_by_relation={name: 2 * number for name, number in num_facts.items()},
        num_mechanistic_indications=0,
        num_noise_indications=num_facts["indication"],
        indication_noise=1.0,
        capped_relations=tuple(n for n, asked in graph.asked.items() if num_facts[n] < asked),
        output=str(path),
        seconds=time.perf_counter() - began,
    )


def _check_parameters(path: Path, preset: str) -> None:
    if preset not in _PRESETS:
        raise InputError(f"preset (got {preset!r}) must be one of {', '.join(_PRESETS)}")
    if not path.name.endswith(SUFFIXES):
        raise InputError(f"output (got {str(path)!r}) must end in one of {', '.join(SUFFIXES)}")
    if path.is_dir():
        raise InputError(f"output (got {str(path)!r}) must not be a directory")
    check_writable("output", path.parent, path)


class _Latent:
    """The random variables of the n nodes of one type, which form g groups."""

    def __init__(self, rng: np.random.Generator, count: int, num_modules: int) -> None:
        # Groups have 10 nodes. In small types they have fewer, so that most modules get a group.
        num_groups = max(count // 10, min(count, 2 * num_modules))
        self.group = rng.permutation(np.arange(count) % num_groups)  # shape (n,)
        size = np.cumsum((np.arange(num_modules) + 4.0) ** -0.9)  # a few modules are large
        # main module (ascending) and second module of each group, shape (g,)
        self.module = np.searchsorted(size / size[-1], (np.arange(num_groups) + 0.5) / num_groups)
        self.second = rng.permutation(self.module)
        self.hub = rng.normal(size=count)  # shape (n,), part of log(popularity) in all relations


class _Picker:
    """Samples members of groups; the probability of a member is proportional to its weight."""

    def __init__(self, rng: np.random.Generator, group: Ints, member: Ints, weight: Floats) -> None:
        order = np.argsort(group, kind="stable")
        self.rng, self.weight = rng, weight
        self.group, self.member = group[order], member[order]
        self.cumulative: Floats = np.concatenate([[0.0], np.cumsum(weight[order])])

    def draw(self, groups: Ints) -> Ints:
        """Sample one member of each of `groups`; -1 for a group without members."""
        low = np.searchsorted(self.group, groups, side="left")
        high = np.searchsorted(self.group, groups, side="right")
        uniform = self.rng.random(len(groups))
        level = (1 - uniform) * self.cumulative[low] + uniform * self.cumulative[high]
        at = np.searchsorted(self.cumulative[1:-1], level, side="right")
        # Rounding can move `at` past the last member of the group; the clip moves it back.
        return np.where(high > low, self.member[np.clip(at, low, high - 1)], -1)

    def jump(self, like: Ints) -> Ints:
        """Sample one member from all groups together for each element of `like`."""
        level = self.rng.uniform(0.0, self.cumulative[-1], len(like))
        return self.member[np.searchsorted(self.cumulative[1:-1], level, side="right")]


#: A way to sample facts: the fraction of the missing facts at which it stops (counting the facts
#: of earlier ways), the picker of x, and the hops from x to y.
_Way = tuple[float, _Picker, list[Hop]]


class _Sampler:
    """Samples the facts of one relation after the other.

    `facts` maps a relation to the x and y nodes of its facts, numbered within their types, shape
    (2, F). During sampling, a fact is one integer, the key x * num_y + y.
    """

    def __init__(self, rng: np.random.Generator, counts: dict[str, int], scale: float) -> None:
        # At scale 1 a module has about 110 genes, 30 drugs and 70 diseases. Small graphs have fewer
        # modules; otherwise a module would have fewer genes than its pathways need.
        self.num_modules = max(4, round(min(250 * scale**0.5, 1500 * scale)))
        self.rng, self.counts = rng, counts
        self.latents = {kind: _Latent(rng, n, self.num_modules) for kind, n in counts.items()}
        self.facts: dict[str, Ints] = {}

    def draw(self, name: str, asked: int) -> int:
        """Sample about `asked` facts; return how many were not sampled by popularity alone."""
        relation = RELATIONS[name]
        num_x, num_y = self.counts[relation.x_type], self.counts[relation.y_type]
        pairs = num_x * num_y if relation.x_type != relation.y_type else num_x * (num_x - 1) // 2
        least = num_x if name in COVERING else num_x - 1 if relation.display == TREE else 1
        goal = min(max(asked, least), int(MAX_DENSITY * pairs))
        pick_x, even_x = (self._picker(relation.x_type, tail) for tail in (relation.x_tail, 0.0))
        pick_y, even_y = (self._picker(relation.y_type, tail) for tail in (relation.y_tail, 0.0))
        found = np.empty(0, dtype=np.int64)
        if name in NOISE:
            ways = self._walks(name, pick_x, pick_y)
        else:
            x = self.latents[relation.x_type]
            listed = self._draw_lists(name, x, pick_y) if name in LISTS else pick_y.jump
            if relation.display == TREE:
                found = self._encode(relation, *self._draw_tree(x))
            elif name in COVERING:
                found = self._encode(relation, np.arange(num_x), listed(np.arange(num_x)))
            stop = relation.listed + relation.module
            ways = [
                (relation.listed, pick_x, [listed]),
                (stop, pick_x, [lambda at: pick_y.draw(x.module[x.group[at]])]),
                (stop, even_x, [lambda at: even_y.draw(x.module[x.group[at]])]),
            ]
        found = self._collect(relation, found, goal, ways)
        planted = len(found)
        ways = [(1.0, pick_x, [pick_y.jump]), (1.0, even_x, [even_y.jump])]
        found = self._collect(relation, found, goal, ways)
        self.facts[name] = np.stack(np.divmod(self.rng.permutation(found), num_y))
        return planted

    def _walks(self, name: str, drugs: _Picker, diseases: _Picker) -> list[_Way]:
        """Return the ways to sample drug-disease pairs that follow the mechanism."""
        stop = 1 - NOISE[name]
        if name == "contraindication":
            phenotype_of = self._hop("disease_phenotype_positive", True, diseases.weight)
            return [(stop, drugs, [self._hop("drug_effect"), phenotype_of])]
        target = self._hop("drug_protein")
        gene_of = self._hop("disease_protein", True, diseases.weight)
        pathway, member = self._hop("pathway_protein", True), self._hop("pathway_protein")
        direct, by_pathway = [target, gene_of], [target, pathway, member, gene_of]
        return [(stop / 2, drugs, direct), (stop, drugs, by_pathway), (stop, drugs, direct)]

    def _hop(self, name: str, back: bool = False, weight: Floats | None = None) -> Hop:
        """Return the hop from x to y (if `back`, from y to x); `weight` has one number per end."""
        source, target = self.facts[name][::-1] if back else self.facts[name]
        weights = np.ones(len(target)) if weight is None else weight[target]
        return _Picker(self.rng, source, target, weights).draw

    def _picker(self, kind: str, tail: float) -> _Picker:
        """Return a picker of nodes by module, with new random weights exp(tail * popularity)."""
        latent = self.latents[kind]
        module = latent.module[latent.group]
        # Half of the variance comes from `hub`, so that a node is popular in several relations.
        popularity = (latent.hub + self.rng.normal(size=len(module))) / math.sqrt(2)
        return _Picker(self.rng, module, np.arange(len(module)), np.exp(tail * popularity))

    def _draw_lists(self, name: str, x: _Latent, pick_y: _Picker) -> Hop:
        """Sample a list of y nodes for each group of x; return the hop from x to an entry."""
        length, in_module, in_second = LISTS[name]
        owner = np.repeat(np.arange(len(x.module)), length)
        uniform = self.rng.random(len(owner))
        module = np.where(uniform < in_module, x.module[owner], x.second[owner])
        entry = pick_y.draw(np.where(uniform < in_module + in_second, module, -1))
        entry = np.where(entry < 0, pick_y.jump(owner), entry)
        shared = _Picker(self.rng, owner, entry, self.rng.random(len(owner)))
        return lambda at: shared.draw(x.group[at])

    def _draw_tree(self, latent: _Latent) -> tuple[Ints, Ints]:
        """Sample a tree over all nodes; return the child and the parent of each edge."""
        order = np.lexsort((-latent.hub, latent.group))  # by group, the largest hub first
        group = latent.group[order]
        first = np.searchsorted(group, np.arange(len(latent.module)))
        rank = np.arange(len(order)) - first[group]
        parent = first[group] + (rank * self.rng.random(len(order)) ** 6).astype(np.int64)
        # The largest hub of a group has the largest hub of an earlier group as its parent.
        before = np.maximum(group - 1 - self.rng.pareto(0.4, len(order)), 0).astype(np.int64)
        parent = np.where(rank == 0, first[before], parent)
        return order[1:], order[parent[1:]]

    def _collect(self, relation: Relation, found: Ints, goal: int, ways: list[_Way]) -> Ints:
        """Add facts to the sorted keys `found`, one way after the other, up to `goal` keys."""
        start, missing = len(found), goal - len(found)
        for stop, picker, hops in ways:
            while (need := start + round(stop * missing) - len(found)) > 0:
                x = y = picker.jump(np.zeros(need + need // 4 + 16, dtype=np.int64))
                for hop in hops:
                    y = hop(y)
                fresh = np.setdiff1d(self._encode(relation, x, y), found, assume_unique=True)
                fresh = self.rng.permutation(fresh)[:need]
                found = np.sort(np.concatenate([found, fresh]), kind="stable")
                if len(fresh) <= 0.02 * need:  # this way finds few new facts
                    break
        return found

    def _encode(self, relation: Relation, x: Ints, y: Ints) -> Ints:
        """Return distinct, sorted keys, without self-loops and -1; x < y if the types are equal."""
        real = (x >= 0) & (y >= 0)
        if relation.x_type == relation.y_type:
            real &= x != y
            x, y = np.minimum(x, y), np.maximum(x, y)
        return np.unique((x * self.counts[relation.y_type] + y)[real])


def _name_nodes(rng: np.random.Generator, counts: dict[str, int]) -> pl.DataFrame:
    """Return one row per node; nodes of different sources or types may share an id or a name."""
    # Twice as many numbers as the largest source needs, so that sources often share a number.
    pool = 2 * sum(counts[name] for name in (PROCESS, FUNCTION, COMPONENT))
    numbers = {source: rng.permutation(pool) + 1 for _, source, _, _ in NODE_TYPES.values()}
    frames = []
    for name, (_, source, id_format, own) in NODE_TYPES.items():
        number, numbers[source] = np.split(numbers[source], [counts[name]])
        kinds = (own[n % 2 if n % 100 else -1] for n in range(counts[name]))
        names = [kind.format(stem=STEMS[n % len(STEMS)], n=n) for n, kind in enumerate(kinds)]
        frame = pl.DataFrame({"id": [id_format.format(n) for n in number], "name": names})
        frames.append(frame.select("id", pl.lit(name).alias("type"), "name", source=pl.lit(source)))
    return pl.concat(frames).select(pl.int_range(pl.len()).alias("index"), pl.all())


def _stream_rows(nodes: pl.DataFrame, sampler: _Sampler) -> pl.LazyFrame:
    """Stream rows with PrimeKG's 12 columns: the facts of a relation, then their reverse rows."""
    first = dict(zip(sampler.counts, np.cumsum([0, *sampler.counts.values()]), strict=False))
    x_nodes, y_nodes = (nodes.select(pl.all().name.prefix(side)) for side in ("x_", "y_"))

    def batches(*_: Any) -> Iterator[pl.DataFrame]:
        # polars passes the columns and rows that it needs. To write a file, it needs them all.
        for name, (x, y) in sampler.facts.items():
            relation = RELATIONS[name]
            display = pl.lit(relation.display).alias("display_relation")
            x, y = x + first[relation.x_type], y + first[relation.y_type]
            for source, target in ((x, y), (y, x)):
                for at in range(0, len(x), _CHUNK_ROWS):
                    chunk = slice(at, at + _CHUNK_ROWS)
                    sides = [x_nodes[source[chunk]], y_nodes[target[chunk]]]
                    pair = pl.concat(sides, how="horizontal")
                    yield pair.select(pl.lit(name).alias("relation"), display, pl.all())

    return register_io_source(batches, schema=next(batches()).schema)
