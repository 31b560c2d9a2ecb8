"""Training: batches of edges and of the graph, losses, the optimizer, the plan of memory."""
