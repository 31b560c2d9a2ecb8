"""The knowledge graph: reader, cache, adjacency matrices, and look-up of nodes by id or name."""
