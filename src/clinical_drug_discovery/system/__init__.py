"""The machine: errors, devices and memory, files, progress. Knows nothing of graphs or models."""
