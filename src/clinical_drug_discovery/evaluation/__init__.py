"""Evaluation of rankings: splits, metrics, baselines and the rankers that are compared."""
