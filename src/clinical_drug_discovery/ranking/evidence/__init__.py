"""The evidence for a drug: paths in the graph, sentences, and what the ranker makes of them."""
