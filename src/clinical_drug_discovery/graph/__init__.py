"""The data: the knowledge graph, its reader and cache, its adjacency matrices, names of nodes."""
