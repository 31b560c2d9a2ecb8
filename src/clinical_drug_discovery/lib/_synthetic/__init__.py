"""The synthetic graphs of `cdd synthesize`: their shapes, and how a large one is drawn."""
