"""Operations on edges and rows, and their gradients. All edge-sized work is here.

Each operation has two backends: the CPU kernels in `cpu`, and torch's operations in `reference`. No
tensor of shape (num_edges, dim) exists on either, forward or backward.
"""
