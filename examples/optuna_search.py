"""Choose the learning rate and the number of epochs with Optuna, on validation pairs only.

    pip install optuna
    python examples/optuna_search.py

At the end, the best settings are measured once on the test pairs, which no trial has seen.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna

import clinical_drug_discovery as cdd

EDGES = Path(cdd.__file__).parent / "data" / "sample_kg.csv"


def mrr_on(part: str, settings: dict[str, Any]) -> float:
    """Train without the held-out pairs; return the mean reciprocal rank of those of one part."""
    pairs = cdd.EvaluationSettings(
        "pair", share=0.4, relation_share=0, validation_share=0.5, on=part
    )
    report = cdd.evaluate_model(
        EDGES, f"optuna_{part}", model="graphsage", settings=pairs, model_settings=settings,
        rankers=["gnn"], overwrite=True,
    )  # fmt: skip
    return float(report["rankers"]["gnn"]["mrr"])


def objective(trial: optuna.Trial) -> float:
    """Return the figure that Optuna maximizes."""
    learning_rate = trial.suggest_float("learning_rate", 0.001, 0.1, log=True)
    num_epochs = trial.suggest_int("num_epochs", 5, 25)
    return mrr_on("validation", {"learning_rate": learning_rate, "num_epochs": num_epochs})


study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0))
study.optimize(objective, n_trials=4)
print(f"best on validation pairs: {study.best_value:.3f} with {study.best_params}")
print(f"once on test pairs: {mrr_on('test', study.best_params):.3f}")
