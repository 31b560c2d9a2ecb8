"""From rows of integers to the sorted edges of a graph, in memory or in files."""
