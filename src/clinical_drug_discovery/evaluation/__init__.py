"""How good a ranking is: splits, metrics, baselines and the rankers that are compared."""
