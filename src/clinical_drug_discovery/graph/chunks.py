"""Rows in chunks that fit the cache, of few different sizes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

MOST_ROWS = 4096  # with 256 float32 columns 4 MiB: a few of them stay in the last cache
FEW_ROWS = 64  # a chunk of fewer has any size


def row_chunks(start: int, stop: int) -> Iterator[slice]:
    """Cut start:stop into chunks of 4096 rows, then of halves of that, at last of less than 64.

    Libraries of matrix products and GPUs prepare a kernel for each shape that they see, and keep
    it: on PrimeKG with HGT that was 0.3 s and 30 MB an epoch when a last chunk had any size.
    """
    size = MOST_ROWS
    while start < stop:
        while size > stop - start and size >= FEW_ROWS:
            size //= 2
        end = start + size if size >= FEW_ROWS else stop
        yield slice(start, end)
        start = end


def filled_chunks(start: int, stop: int, chunk_size: int) -> Iterator[tuple[int, int]]:
    """Starts and sizes of chunks of two sizes that cover start:stop; the last one may go beyond.

    Less than half of any chunk is filling, but for the smaller size. Four sizes, each a quarter of
    the next, fill 1% to 2% less on PrimeKG and double the shapes that GPUs see.

    Args:
        start: of what is to be covered.
        stop: of what is to be covered.
        chunk_size: the larger size; the other one is a quarter of it.
    """
    while start < stop:
        size = chunk_size if chunk_size < 2 * (stop - start) else max(chunk_size // 4, 1)
        yield start, size
        start += size


def window_rows(num_rows: int) -> int:
    """How many of so many rows GPUs take at a time: always as many."""
    return min(MOST_ROWS, num_rows)


def steady_size(counts: Sequence[int], most: int, more: int) -> int:
    """The one size of chunks, the last one of each count filled up, that costs the least.

    Args:
        counts: of what each kind of chunk has to cover.
        most: the largest size; the others are halves of the next larger, 64 at least.
        more: what a chunk costs whatever its size: as much as so many more in it.
    """
    sizes = [most]
    while sizes[-1] >= 2 * FEW_ROWS:
        sizes.append(sizes[-1] // 2)
    return min(sizes, key=lambda size: (size + more) * sum(-(-count // size) for count in counts))
