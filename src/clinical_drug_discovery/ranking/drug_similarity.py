"""Which metapaths a graph has, and how alike they make drugs to drugs and diseases to diseases.

Everything follows from the edge types: steps out of drugs and out of diseases, one or two of them,
to any node type but these two. A missing node type gives fewer paths, never an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse
from scipy.sparse import csr_array

from clinical_drug_discovery.graph.adjacency import (
    Floats,
    adjacency,
    damped,
    ones,
    power,
    rare_columns,
    scale,
    unit_rows,
)
from clinical_drug_discovery.graph.knowledge_graph import (
    DISEASE,
    DRUG,
    EdgeType,
    IntArray,
    KnowledgeGraph,
)

#: Long walks beat three hops: a relative's relative's indications are better than none.
_STAY, _WALK_STEPS = 0.7, 8
_WALKS = 128  # at a time

Chain = tuple[EdgeType, ...]


@dataclass(frozen=True)
class Kernel:
    """How alike nodes of a type are: left @ right.T; how alike one is to itself never counts."""

    name: str
    left: csr_array
    right: csr_array

    @cached_property
    def right_t(self) -> csr_array:
        """The right factor's transpose; to transpose it for every product would cost more."""
        return csr_array(self.right.T)

    @cached_property
    def itself(self) -> Floats:
        """How alike each node is to itself, which is to be taken away."""
        return np.asarray(self.left.multiply(self.right).sum(axis=1), np.float32)


def spell(chain: Sequence[EdgeType]) -> str:
    """A metapath in words: drug - drug_protein - gene/protein - disease_protein - disease."""
    return chain[0].src_type + "".join(f" - {k.relation} - {k.dst_type}" for k in chain)


def back(chain: Sequence[EdgeType]) -> Chain:
    """The same metapath walked the other way."""
    return tuple(EdgeType(k.dst_type, k.relation, k.src_type) for k in reversed(chain))


def profiles(graph: KnowledgeGraph, start: str) -> dict[Chain, csr_array]:
    """Damped counts of all paths of one or two steps out of a node type.

    Args:
        graph: on the CPU.
        start: drug or disease.

    Returns:
        For each metapath the counts, shape (nodes of the type, nodes where it ends).
    """
    found: dict[Chain, csr_array] = {}
    for first in steps_from(graph, start):
        one = damped(adjacency(graph, first))
        found[(first,)] = one
        for second in steps_from(graph, first.dst_type):
            found[(first, second)] = csr_array(one @ damped(adjacency(graph, second)))
    return found


def joined(
    drugs: dict[Chain, csr_array], diseases: dict[Chain, csr_array]
) -> list[tuple[str, csr_array, csr_array]]:
    """The metapaths from drug to disease that meet in one node type.

    Args:
        drugs: the drugs' `profiles`.
        diseases: the diseases' `profiles`.

    Returns:
        For each its name, the drugs' counts transposed, and the diseases' counts.
    """
    return [
        (spell((*a, *back(b))), csr_array(left.T), right)
        for a, left in drugs.items()
        for b, right in diseases.items()
        if meet(a, b)
    ]


def kernels(graph: KnowledgeGraph, kind: str, paths: dict[Chain, csr_array]) -> list[Kernel]:
    """How alike the nodes of a type are, one kernel for each way to be alike.

    Args:
        graph: on the CPU.
        kind: drug or disease.
        paths: the type's `profiles`.

    Returns:
        Cosines of the profiles, of the neighbours by each relation of the type with itself, and
        those relations themselves; among diseases also three steps along them.
    """
    found = []
    for chain, profile in paths.items():
        cosine = unit_rows(profile) if len(chain) == 2 else rare_columns(ones(profile))
        found.append(Kernel(spell((*chain, *back(chain))), cosine, cosine))
    for edge in graph.edge_types:
        if edge.src_type == edge.dst_type == kind:
            found += _along(adjacency(graph, edge), edge, kind)
    return found


def walks(graph: KnowledgeGraph, kind: str, starts: IntArray) -> list[tuple[str, Floats]]:
    """How often random walks from some nodes, along relations of a type with itself, come by.

    Args:
        graph: on the CPU.
        kind: drug or disease.
        starts: shape (s,), where walks start.

    Returns:
        For each such relation its name and visits, shape (s, nodes of the type), a visit after k
        steps counting 0.7^k. 4 bytes for each number: 73 MB for the real graph's diseases.
    """
    found = []
    for edge in graph.edge_types:
        if edge.src_type == edge.dst_type == kind:
            links = adjacency(graph, edge)
            ones_ = np.ones(links.shape[1], np.float32)
            # Transposed, since scipy's product is sparse times dense.
            step = csr_array(scale(links, power(links.sum(axis=1), -1), ones_).T)
            visits = np.zeros((len(starts), links.shape[0]), np.float32)
            for first in range(0, len(starts), _WALKS):
                some = starts[first : first + _WALKS]
                at = np.zeros((links.shape[0], len(some)), np.float32)
                at[some, np.arange(len(some))] = 1
                for _ in range(_WALK_STEPS):
                    at = _STAY * (step @ at)
                    visits[first : first + _WALKS] += at.T
            found.append((f"{kind} - walk along {edge.relation} - {kind}", visits))
    return found


def _along(links: csr_array, edge: EdgeType, kind: str) -> list[Kernel]:
    eye = csr_array(scipy.sparse.eye_array(links.shape[0], dtype=np.float32))
    shared = rare_columns(links)
    one = damped(links)
    found = [
        Kernel(spell([edge]), one, eye),
        Kernel(spell([edge] * 2), shared, shared),
    ]
    if kind == DISEASE:
        found.append(Kernel(spell([edge] * 3), csr_array(one @ one), one))
    return found


def steps_from(graph: KnowledgeGraph, start: str) -> list[EdgeType]:
    """The edge types out of a type to any but drugs and diseases."""
    ends = (DRUG, DISEASE)
    return [k for k in graph.edge_types if k.src_type == start and k.dst_type not in ends]


def meet(a: Chain, b: Chain) -> bool:
    """Each metapath once: two steps from the disease only where they mirror the drug's two."""
    if a[-1].dst_type != b[-1].dst_type:
        return False
    if len(b) == 1:
        return True
    return len(a) == 2 and a[1] == b[1]


def fellows_of(rows: Floats) -> Floats:
    """Features by the asked disease's known drugs: the sum and the most of what they are alike.

    Args:
        rows: shape (kernels, k, drugs), from `paths.PathEvidence.fellow_rows`.

    Returns:
        Shape (2 kernels + 1, drugs); the last one is log(1 + number of known drugs).
    """
    return _sum_and_most(rows.sum(axis=1), rows.max(axis=1, initial=0), rows.shape[1])


def fellows_without(rows: Floats, goals: IntArray) -> Floats:
    """As `fellows_of`, for each of some known drugs without it, as a list needs whose goal it is.

    Args:
        rows: shape (kernels, k, drugs).
        goals: shape (G,), which of the k.

    Returns:
        Shape (G, 2 kernels + 1, drugs).
    """
    goal = np.moveaxis(rows[:, goals], 1, 0)
    most, at = rows.max(axis=1), np.expand_dims(rows.argmax(axis=1), 1)
    others = rows.copy()
    np.put_along_axis(others, at, 0, axis=1)
    left = np.where(at[:, 0] == goals[:, None, None], others.max(axis=1, initial=0), most)
    # Of what remains of a sum without its only part, rounding is all.
    total = np.where((left > 0), rows.sum(axis=1) - goal, 0)
    return _sum_and_most(total, left, rows.shape[1] - 1)


def _sum_and_most(total: Floats, most: Floats, count: int) -> Floats:
    *lists, num_kernels, num_drugs = total.shape
    out = np.zeros((*lists, 2 * num_kernels + 1, num_drugs), np.float32)
    out[..., 0:-1:2, :] = total
    out[..., 1:-1:2, :] = most
    out[..., -1, :] = np.log1p(count)
    return out
