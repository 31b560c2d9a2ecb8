"""The only place with edge-sized work. One autograd function per operation, two backends.

On the CPU the kernels of `cpu`, elsewhere the chunked torch code of `reference`, which is also the
oracle of the tests. No tensor of shape (num_edges, dim) exists on either path, forward or backward.
"""

from clinical_drug_discovery.ops.attention import heterogeneous_attention
from clinical_drug_discovery.ops.listwise import listwise_loss
from clinical_drug_discovery.ops.mean import add_mean, mean_backward_by_type, mean_neighbors

__all__ = [
    "add_mean",
    "heterogeneous_attention",
    "listwise_loss",
    "mean_backward_by_type",
    "mean_neighbors",
]
