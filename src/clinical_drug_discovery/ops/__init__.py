"""Operations on edges and rows, and their gradients. All edge-sized work is here.

Each operation on edges has two implementations: CPU kernels in `cpu`, and torch operations in
`reference`. Neither makes a tensor of shape (num_edges, dim), in the forward or backward pass.
"""
