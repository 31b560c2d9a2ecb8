"""Checks on a drug ranker that was loaded from a file."""
