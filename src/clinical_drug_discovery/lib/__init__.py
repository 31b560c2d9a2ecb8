"""The public verbs: one module for each command of `cdd`."""
