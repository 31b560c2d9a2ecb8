"""Number distinct hashes in the order in which they are met."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]
Numbers = npt.NDArray[np.int32]

_MIX = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio; multiplying a hash by it mixes the bits
_MIN_BITS = 18  # log2 of the smallest number of slots
# Least number of slots for a key. With 8, one key in sixteen finds its slot taken. For many keys,
# so many slots would take more memory than the keys: they have 2 to 4 slots each, 8 to 16 bytes.
_SLOTS_PER_KEY, _SLOTS_OF_MANY, _MANY_KEYS = 8, 2, 2**21
_INSERTED = 2**20  # keys that are given slots at a time


class Numbering:
    """A hash table that numbers distinct 64-bit hashes 0, 1, 2, ... in the order they are added.

    Nearly every look-up reads one slot. This is five times as fast as a join or a binary search. It
    also does not wait for polars' thread pool, which is busy with reading the file. A key whose
    slot is taken has the next free slot (linear probing).
    """

    def __init__(self) -> None:
        self._room: Hashes = np.empty(0, np.uint64)  # the keys, and space for more
        self._keys = self._room
        self._bits = _MIN_BITS
        self._slots: Numbers = np.full(1 << self._bits, -1, np.int32)

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, keys: Hashes) -> Numbers:
        """Return the number of each key, or -1 for a key that was never added."""
        if not len(self):
            return np.full(len(keys), -1, np.int32)
        slots = self._slot(keys)
        found = self._slots[slots]
        # For an empty slot, the index -1 reads the last key. It cannot equal the wanted key: the
        # wanted key would have taken the slot.
        other = np.flatnonzero(self._keys[found] != keys)
        while len(other):
            other = other[found[other] >= 0]
            slots[other] = self._after(slots[other])
            found[other] = self._slots[slots[other]]
            other = other[self._keys[found[other]] != keys[other]]
        return found

    def add(self, keys: Hashes) -> None:
        """Number new keys in the given order; they must be distinct and not yet in the table."""
        first, size = len(self), len(self) + len(keys)
        if size > len(self._room):
            room = np.empty(size + size // 4, np.uint64)
            room[:first] = self._keys
            self._room = room
        self._room[first:size] = keys
        self._keys = self._room[:size]
        per_key, growth = (_SLOTS_PER_KEY, 2) if size < _MANY_KEYS else (_SLOTS_OF_MANY, 1)
        if size * per_key > len(self._slots):
            self._bits = (size * per_key * growth).bit_length()
            self._slots = np.empty(0, np.int32)  # frees the old slots first
            self._slots = np.full(1 << self._bits, -1, np.int32)
            first = 0
        for start in range(first, size, _INSERTED):
            self._insert(np.arange(start, min(start + _INSERTED, size), dtype=np.int32))

    def _insert(self, numbers: Numbers) -> None:
        slots = self._slot(self._keys[numbers])
        while len(numbers):
            free = self._slots[slots] < 0
            self._slots[slots[free]] = numbers[free]
            left = self._slots[slots] != numbers
            numbers, slots = numbers[left], self._after(slots[left])

    def _slot(self, keys: Hashes) -> Hashes:
        return keys * _MIX >> np.uint64(64 - self._bits)

    def _after(self, slots: Hashes) -> Hashes:
        return slots + np.uint64(1) & np.uint64(len(self._slots) - 1)
