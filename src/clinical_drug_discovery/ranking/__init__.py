"""Drugs for a disease: metapath features, the ranker on them, calibration and explanations."""
