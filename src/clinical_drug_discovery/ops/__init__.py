"""The only place with edge-sized work. One autograd function per operation, two backends.

On the CPU the kernels of `cpu`, elsewhere the chunked torch code of `reference`, which is also the
oracle of the tests. No tensor of shape (num_edges, dim) exists on either path, forward or backward.
"""
