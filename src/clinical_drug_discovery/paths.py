"""Evidence of typed paths between drugs and diseases: how strongly each metapath joins each pair.

A metapath is a chain of edge types, such as drug - targets - gene/protein - disease. Which there
are follows from the graph's edge types alone. Four families: through what drug and disease share
(`direct`), through other diseases that the drug treats (`relatives`), through other drugs that
treat the disease (`fellows`), through both (`roundabout`).

The rule that everything here keeps: **the features of a pair do not depend on whether the pair's
own drug-disease edges are in the graph.** Paths through other diseases leave the asked disease's
drugs out altogether, degrees included; paths through other drugs go from a drug to *another* one
that is known. So nothing has to be masked, and a ranker fitted on known pairs cannot copy them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import scipy.sparse

from clinical_drug_discovery.graph import EdgeType, KnowledgeGraph
from clinical_drug_discovery.typed import (
    Sparse,
    biadjacency,
    damped,
    ending_profiles,
    power,
    rare_columns,
    unit_rows,
    word_profiles,
)

DRUG, DISEASE = "drug", "disease"
TREATS = ("indication", "palliation")
_HOPS = 3
_WALK_STEPS, _WALK_STAY = 12, 0.7
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.integer]



@dataclass(frozen=True)
class Kernel:
    """How alike nodes of a type are: left @ right.T; how alike one is to itself never counts."""

    name: str
    left: Sparse
    right: Sparse

    @cached_property
    def right_t(self) -> Sparse:
        return Sparse(self.right.T)


class PathEvidence:
    """The features of all drug-disease pairs of a graph, made for some diseases at a time."""

    def __init__(
        self,
        graph: KnowledgeGraph,
        *,
        treats: Sequence[str] = TREATS,
        hidden: Ints | None = None,
        use_names: bool = True,
    ) -> None:
        """Discover the metapaths and form what all diseases share.

        Args:
            graph: on the CPU.
            treats: relations that say that a drug treats a disease.
            hidden: shape (H, 2), pairs (drug, disease), numbered within their types, whose
                edges of every relation are taken out first.
            use_names: whether names of nodes may make drugs or diseases alike.
        """
        self.num_drugs, self.num_diseases = (_count(graph, name) for name in (DRUG, DISEASE))
        relations = [
            k.relation for k in graph.edge_types if (k.src_type, k.dst_type) == (DRUG, DISEASE)
        ]
        links = {r: biadjacency(graph, EdgeType(DRUG, r, DISEASE)) for r in relations}
        if hidden is not None:
            links = {r: _without(link, hidden) for r, link in links.items()}
        empty = Sparse((self.num_drugs, self.num_diseases), dtype=np.float32)
        treating = [links[r] for r in treats if r in links]
        #: shape (drugs, diseases), ones where a drug is known to treat a disease
        self.known = _ones(sum(treating, empty))
        self.others = {r: link for r, link in links.items() if r not in treats}
        self._build(graph, use_names)

    def _build(self, graph: KnowledgeGraph, use_names: bool) -> None:
        drug_paths, disease_paths = _profiles(graph, DRUG), _profiles(graph, DISEASE)
        self.direct = _joined(drug_paths, disease_paths)
        self.drug_kernels = _kernels(graph, DRUG, drug_paths)
        self.disease_kernels = _kernels(graph, DISEASE, disease_paths)
        if use_names:
            names = graph.nodes.filter(graph.nodes["node_type"] == DISEASE)["node_name"].to_list()
            words = word_profiles(names)
            self.disease_kernels.append(Kernel("disease - name shares words - disease", words, words))
            names = graph.nodes.filter(graph.nodes["node_type"] == DRUG)["node_name"].to_list()
            ends = ending_profiles(names)
            self.drug_kernels.append(Kernel("drug - name shares stem - drug", ends, ends))
        self.treated = np.flatnonzero(np.diff(self.known.tocsc().indptr))
        self._column = np.full(self.num_diseases, -1)
        self._column[self.treated] = np.arange(len(self.treated))
        self.treats_degree = np.diff(self.known.indptr).astype(np.float32)
        known = Sparse(self.known[:, self.treated])
        weights = power(known.sum(axis=0))
        self._treats = Sparse(known @ scipy.sparse.diags_array(weights))
        self._treats_t = Sparse(self._treats.T)
        self._around = [
            _other_rows(kernel, self._treats) for kernel in self.drug_kernels
        ]
        self._others = [Sparse(link[:, self._any_other].T) for link in self.others.values()]
        self._drug_degrees = np.stack(
            [np.log1p(_degree(graph, k)) for k in graph.edge_types if k.src_type == DRUG and k.dst_type != DISEASE]
            or [np.zeros(self.num_drugs)], axis=1).astype(np.float32)
        self._disease_degrees = np.stack(
            [np.log1p(_degree(graph, k)) for k in graph.edge_types if k.src_type == DISEASE and k.dst_type != DRUG]
            or [np.zeros(self.num_diseases)], axis=1).astype(np.float32)

    @cached_property
    def _any_other(self) -> Ints:
        total = sum((np.asarray(link.sum(axis=0)) for link in self.others.values()), np.zeros(self.num_diseases))
        return np.flatnonzero(total)

    @cached_property
    def path_names(self) -> tuple[str, ...]:
        names = [name for name, _, _ in self.direct]
        for kernel in self.disease_kernels:
            names += [f"drug - treats - {kernel.name}", f"drug - treats - {kernel.name} (nearest)"]
        names += [f"drug - {r} - disease - alike - disease" for r in self.others]
        names += [f"{k.name} - treats - disease - {b} - disease" for b in ("related", "alike") for k in self.drug_kernels]
        names += ["drug - treats - disease (how many)"]
        names += [f"drug degree {i}" for i in range(self._drug_degrees.shape[1])]
        names += [f"disease degree {i}" for i in range(self._disease_degrees.shape[1])]
        names += [f"nearest by {k.name}" for k in self.disease_kernels]
        self.num_base = len(names)
        for k in self.fellow_names:
            names += [f"{k} - treats - disease", f"{k} - treats - disease (nearest)"]
        return (*names, "disease - treated by (how many)")

    @cached_property
    def fellow_names(self) -> list[str]:
        return [k.name for k in self.drug_kernels] + ["drug - treats - disease - treats - drug"]

    def base(self, diseases: Ints) -> Floats:
        """Features without the asked diseases' own drugs, shape (n, num_base, drugs)."""
        n = len(diseases)
        _ = self.path_names
        out = np.zeros((n, self.num_base, self.num_drugs), np.float32)
        at = 0
        for _, drug, disease in self.direct:
            out[:, at] = (disease[diseases] @ drug).toarray()
            at += 1
        own = self.known[:, diseases].T.toarray().astype(np.float32)
        degree = self.treats_degree - own
        damp = power(degree)
        blocks = [self._block(kernel, diseases) for kernel in self.disease_kernels]
        nnz_cols = self._treats.indices
        has = np.flatnonzero(np.diff(self._treats.indptr))
        starts = self._treats.indptr[has]
        for block in blocks:
            out[:, at] = (block @ self._treats_t) * damp
            if len(has):
                out[:, at + 1, has] = np.maximum.reduceat(block[:, nnz_cols], starts, axis=1)
            at += 2
        alike = sum(b / max(float(b.max(initial=0)), 1e-9) for b in blocks[:0]) + sum(blocks) / max(len(blocks), 1)
        related = self._related(blocks)
        if self.others:
            block = sum(self._block(k, diseases, self._any_other) for k in self.disease_kernels)
            for link in self._others:
                out[:, at] = block @ link
                at += 1
        for b in (related, alike):
            for around in self._around:
                out[:, at] = b @ around
                at += 1
        out[:, at] = np.log1p(degree)
        at += 1
        for matrix in (self._drug_degrees,):
            k = matrix.shape[1]
            out[:, at : at + k] = matrix.T
            at += k
        k = self._disease_degrees.shape[1]
        out[:, at : at + k] = self._disease_degrees[diseases][:, :, None]
        at += k
        for block in blocks:
            out[:, at] = block.max(axis=1, initial=0)[:, None]
            at += 1
        assert at == self.num_base
        return out

    def _related(self, blocks: list[Floats]) -> Floats:
        for kernel, block in zip(self.disease_kernels, blocks, strict=True):
            if "walk" in kernel.name:
                return block
        return blocks[0]

    def _block(self, kernel: Kernel, diseases: Ints, columns: Ints | None = None) -> Floats:
        cols = self.treated if columns is None else columns
        block = (kernel.left[diseases] @ Sparse(kernel.right[cols]).T).toarray()
        block[diseases[:, None] == cols[None]] = 0
        return block

    def fellow_rows(self, disease: int) -> tuple[Ints, Floats]:
        """How alike the asked disease's drugs are to all drugs: (k,), and (kernels, k, drugs)."""
        csc = self._known_csc
        drugs = np.sort(csc.indices[csc.indptr[disease] : csc.indptr[disease + 1]])
        k = len(drugs)
        rows = np.zeros((len(self.fellow_names), k, self.num_drugs), np.float32)
        if k:
            for j, kernel in enumerate(self.drug_kernels):
                rows[j] = (kernel.left[drugs] @ kernel.right_t).toarray()
            rows[-1] = self._treat_rows(drugs, disease)
            rows[:, np.arange(k), drugs] = 0
        return drugs, rows

    @cached_property
    def _known_csc(self):
        return self.known.tocsc()

    def _treat_rows(self, drugs: Ints, disease: int) -> Floats:
        t = self._treats
        col = self._column[disease]
        own = t[:, [col]].toarray()[:, 0]
        squares = np.asarray(t.multiply(t).sum(axis=1)) - own**2
        norm = power(np.where(squares > 1e-9, squares, 0), -0.5)
        rows = t[drugs].toarray()
        rows[:, col] = 0
        return (rows @ self._treats_t) * norm[drugs][:, None] * norm


def _count(graph: KnowledgeGraph, name: str) -> int:
    if name not in graph.node_type_names:
        return 0
    start, stop = graph.span(graph.node_type_names.index(name))
    return stop - start


def _degree(graph: KnowledgeGraph, kind: EdgeType) -> Floats:
    return np.diff(biadjacency(graph, kind).indptr).astype(np.float32)


def _without(link: Sparse, hidden: Ints) -> Sparse:
    gone = Sparse((np.ones(len(hidden), np.float32), (hidden[:, 0], hidden[:, 1])), shape=link.shape)
    return Sparse(link - link.multiply(gone != 0))


def aggregate(rows: Floats, without: int | None = None) -> Floats:
    """Sum and largest likeness to the known drugs, and how many: (2 kernels + 1, drugs)."""
    if without is not None:
        rows = np.delete(rows, without, axis=1)
    num_kernels, k, num_drugs = rows.shape
    out = np.zeros((2 * num_kernels + 1, num_drugs), np.float32)
    out[0:-1:2] = rows.sum(axis=1)
    out[1::2] = rows.max(axis=1, initial=0)
    out[-1] = np.log1p(k)
    return out


def _ones(matrix: Sparse) -> Sparse:
    matrix = Sparse(matrix)
    matrix.eliminate_zeros()
    matrix.data[:] = 1
    matrix.sort_indices()
    return matrix


def _joined(drug_paths, disease_paths):
    found = []
    for a, left in drug_paths.items():
        for b, right in disease_paths.items():
            if a[-1].dst_type != b[-1].dst_type:
                continue
            if len(b) == 2 and (len(a) == 1 or a[-1].relation != b[-1].relation or a[0].dst_type != b[0].dst_type):
                continue
            found.append((spell((*a, *_back(b))), Sparse(left.T), right))
    return found


def _kernels(graph: KnowledgeGraph, kind: str, paths) -> list[Kernel]:
    kernels = []
    for chain, profile in paths.items():
        x = unit_rows(profile) if len(chain) == 2 else rare_columns(_ones(profile.copy()))
        kernels.append(Kernel(_mirrored(graph, chain), x, x))
    n = _count(graph, kind)
    eye = Sparse(scipy.sparse.eye_array(n, dtype=np.float32))
    for edge in graph.edge_types:
        if edge.src_type == edge.dst_type == kind:
            links = biadjacency(graph, edge)
            kernels.append(Kernel(spell([edge]), damped(links), eye))
            x = rare_columns(links)
            kernels.append(Kernel(spell([edge, edge]), x, x))
            if kind == DISEASE:
                one = damped(links)
                kernels.append(Kernel(spell([edge] * 3), Sparse(one @ one), one))
                kernels.append(Kernel(f"disease - random walk by {edge.relation} - disease", *_walk(links)))
    return kernels


def _walk(links: Sparse) -> tuple[Sparse, Sparse]:
    inverse = power(links.sum(axis=1), -0.5)
    step = Sparse(scipy.sparse.diags_array(inverse) @ links @ scipy.sparse.diags_array(inverse))
    eye = Sparse(scipy.sparse.eye_array(links.shape[0], dtype=np.float32))
    # (I + a S + a^2 S^2)^2 holds walks of up to four steps
    half = eye + _WALK_STAY * step + _WALK_STAY**2 * (step @ step)
    return Sparse(half.astype(np.float32)), Sparse(half.astype(np.float32))


def _other_rows(kernel: Kernel, treats: Sparse) -> Floats:
    """(treated, drugs): for each treated disease its drugs' likes."""
    out = (kernel.left @ (Sparse(kernel.right.T) @ treats)).toarray()
    same = np.asarray(kernel.left.multiply(kernel.right).sum(axis=1))
    return np.ascontiguousarray((out - same[:, None] * treats.toarray()).T.astype(np.float32))


def _profiles(graph: KnowledgeGraph, start: str) -> dict[tuple[EdgeType, ...], Sparse]:
    """Damped counts of all paths of one or two steps out of a node type."""
    found = {}
    for first in _steps(graph, start):
        one = damped(biadjacency(graph, first))
        found[(first,)] = one
        for second in _steps(graph, first.dst_type):
            found[(first, second)] = Sparse(one @ damped(biadjacency(graph, second)))
    return found


def _steps(graph: KnowledgeGraph, start: str) -> list[EdgeType]:
    """Edge types out of a node type, to anything but drugs and diseases."""
    return [k for k in graph.edge_types if k.src_type == start and k.dst_type not in (DRUG, DISEASE)]


def spell(chain: Sequence[EdgeType]) -> str:
    """A metapath in words."""
    return f"{chain[0].src_type}" + "".join(f" - {k.relation} - {k.dst_type}" for k in chain)


def _back(chain: Sequence[EdgeType]) -> tuple[EdgeType, ...]:
    return tuple(EdgeType(k.dst_type, k.relation, k.src_type) for k in reversed(chain))


def _mirrored(graph: KnowledgeGraph, chain: Sequence[EdgeType]) -> str:
    return spell((*chain, *_back(chain)))
