"""Errors, devices, memory, files and progress. This room knows nothing of graphs or models."""
