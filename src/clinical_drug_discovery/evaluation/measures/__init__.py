"""Measures of a ranking beside its metrics: by strata, by difference, by probability, by harm."""
