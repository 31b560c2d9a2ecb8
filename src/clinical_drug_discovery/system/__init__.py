"""Errors, devices, memory, files and progress. This package does not use graphs or models."""
