"""The public functions: one module for each command of `cdd`."""
