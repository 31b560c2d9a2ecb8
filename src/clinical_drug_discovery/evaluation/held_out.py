"""Hold out drug-disease pairs and facts of other relations, and choose the part to rank.

The held-out pairs and facts have a validation part, for choosing settings, and a test part, for
the final figures. The training graph lacks both parts, so both belong to the same trained model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from ..graph.knowledge_graph import KnowledgeGraph
from ..ranking.treatments import Pairs, pairs_of
from ..system.errors import InputError, counted
from .link_prediction import HeldOutFacts, held_out_pairs, hold_out_facts, part_of, removed_edges
from .split import Split, leak_count

TEST, VALIDATION = "test", "validation"  #: the two parts
_MAX_FACTS = 500  # held out per relation: enough to compare models, too few to weaken training


@dataclass(frozen=True)
class HeldOut:
    """A training graph, and the part of the held-out pairs and facts that is ranked."""

    split: Split  #: its graph also lacks the held-out facts of other relations
    pairs: Pairs  #: the pairs to rank
    facts: list[HeldOutFacts]  #: the edges to rank: those of the pairs, and of other relations
    removed: HeldOutFacts  #: all edges of the whole graph that the training graph lacks
    num_edges: int  #: of the whole graph
    num_leaks: int  #: 0; see `split.leak_count`


def hold_out(
    whole: KnowledgeGraph,
    make_split: Callable[..., Split],
    *,
    part: str,
    validation_share: float,
    relation_share: float,
    seed: int,
) -> HeldOut:
    """Remove drug-disease pairs and facts of the other relations from a graph.

    Args:
        whole: on the CPU.
        make_split: one of the functions of `split`, with its settings.
        part: the part to rank, `TEST` or `VALIDATION`.
        validation_share: fraction of the held-out pairs, diseases or areas, and of the held-out
            facts, that is the validation part.
        relation_share: fraction of the facts of every other relation to hold out.
        seed: seed of the split and of the facts.

    Raises:
        InputError: the graph cannot be split in this way, a part is empty, or nothing is left to
            learn from.
    """
    split = make_split(whole, seed=seed, validation_share=validation_share)
    pairs = split.validation if part == VALIDATION else split.test
    if not len(pairs):
        raise InputError(
            f"validation_share (got {validation_share}) leaves no pairs for {part}: "
            f"{counted(len(split.held_out), 'pair is', 'pairs are')} held out"
        )
    _check_learnable(split.graph)
    graph, facts = hold_out_facts(
        split.graph, share=relation_share, max_facts=_MAX_FACTS, seed=seed
    )
    num_leaks = leak_count(graph, split.held_out.drug, split.held_out.disease)
    num_leaks += leak_count(graph, facts.src, facts.dst)
    if num_leaks:  # possible only through a bug in this package
        raise RuntimeError(f"{num_leaks} edges of the training graph join held-out nodes")
    counts = {
        **split.counts,
        "num_held_out_facts": len(facts.src) // 2,
        "num_removed_fact_edges": split.graph.num_edges - graph.num_edges,
    }
    ranked = part_of(
        facts, validation=part == VALIDATION, validation_share=validation_share, seed=seed
    )
    counts[f"num_{part}_facts"] = len(ranked.src) // 2
    split = replace(split, graph=graph, counts=counts)
    ends = (
        np.concatenate([split.held_out.drug, facts.src]),
        np.concatenate([split.held_out.disease, facts.dst]),
    )
    return HeldOut(
        split=split,
        pairs=pairs,
        facts=[held_out_pairs(whole, pairs), ranked],
        removed=removed_edges(whole, *ends),
        num_edges=whole.num_edges,
        num_leaks=num_leaks,
    )


def _check_learnable(graph: KnowledgeGraph) -> None:
    """Check that the training graph still has drugs that treat a disease."""
    if not len(pairs_of(graph)):
        raise InputError(
            "split holds out every pair of a drug and a disease that the drug treats; training "
            "needs at least one such pair, so hold out fewer"
        )
