"""The kinds of models: a table of all models, and for each its settings, its maker and its size."""
