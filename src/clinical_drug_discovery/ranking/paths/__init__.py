"""Sums over paths through other drugs and through other diseases."""
