"""The pictures of a report, as SVG within the page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...api.explanations import STATED
from ..plot import recall, reliability, strata, svg
from ..plot.network_svg import evidence_svg
from ..terminal.evaluation import STRATUM_TITLES
from .evaluation import Evaluation


def evidence_picture(disease: str, drug: Mapping[str, Any]) -> str:
    """Return the network of a drug's evidence; an empty text without facts and evidence.

    Args:
        disease: name of the disease.
        drug: a ranked drug of `disease_record`.
    """
    facts = [
        {
            "kind": STATED,
            "text": fact["text"],
            "nodes": drug["ends"],
            "relations": [fact["relation"]],
        }
        for fact in drug["stated_facts"]
    ]
    paths = [path | {"nodes": path["raw_nodes"]} for path in drug["evidence"]]
    if not facts and not paths:
        return ""
    return evidence_svg([*facts, *paths], title=f"Evidence for {drug['name']} in {disease}")


def reliability_svg(report: Mapping[str, Any]) -> str:
    """Return the reliability curve of an evaluation; an empty text if it does not have one."""
    return svg(reliability(report), title="Reliability") if report.get("reliability") else ""


def evaluation_svgs(evaluation: Evaluation) -> list[tuple[str, str]]:
    """Return the pictures of an evaluation with their captions."""
    report = evaluation.report
    found = [
        ("Fraction of the held-out pairs among the first k drugs",
         svg(recall(report, ranks=evaluation.ranks), title="Recall over rank")),
        *(
            (f"Recall@50 by {title}", svg(strata(report, column=column), title=f"Strata: {column}"))
            for column, title in STRATUM_TITLES.items()
        ),
    ]  # fmt: skip
    if curve := reliability_svg(report):
        found.append(("Probability of drugs, and the share that is recorded", curve))
    return found
