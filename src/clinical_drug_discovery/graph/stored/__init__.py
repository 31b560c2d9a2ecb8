"""The file of a graph in a cache or a model directory, and the checks on its content."""
