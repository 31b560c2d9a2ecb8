"""The only place with edge-sized work. One autograd function per operation, two backends.

On the CPU the kernels of `cpu`, elsewhere the chunked torch code of `reference`, which is also the
oracle of the tests. No tensor of shape (num_edges, dim) exists on either path, forward or backward.
"""

from clinical_drug_discovery.ops.attention import heterogeneous_attention
from clinical_drug_discovery.ops.mean import mean_neighbors, mean_neighbors_backward, mean_of_packed
from clinical_drug_discovery.ops.scores import score_triples

__all__ = ["heterogeneous_attention", "mean_neighbors", "mean_neighbors_backward", "mean_of_packed", "score_triples"]
