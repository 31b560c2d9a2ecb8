"""Arrays of an arena never share memory, and the arena never holds more than was lent at a time."""

from __future__ import annotations

import ctypes
import gc
import mmap
import random
import sys
import threading

import numpy as np
import pytest

from clinical_drug_discovery.system.limits import arena as module
from clinical_drug_discovery.system.limits.arena import PAGE, Arena, Lent

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for resident pages")


def resident(arena: Arena) -> int:
    """The pages of memory that an arena takes, as the system counts them."""
    size, total = mmap.PAGESIZE, 0
    for mapping in arena._mappings:
        memory = mapping.memory
        states = (ctypes.c_ubyte * (memory.nbytes // size))()
        found = ctypes.CDLL(None, use_errno=True).mincore(
            ctypes.c_void_p(memory.ctypes.data), ctypes.c_size_t(memory.nbytes), states
        )
        assert found == 0, ctypes.get_errno()
        total += sum(state & 1 for state in states) * size
    return -(-total // PAGE)


def lend(arena: Arena, num_pages: int, value: int = 0) -> Lent:
    size = num_pages * PAGE - 8  # not a whole page
    array = arena.lend((size // 8,), np.int64)
    array[:] = value
    return array


@needs_linux
@pytest.mark.parametrize("seed", range(5))
def test_arrays_keep_their_numbers_and_memory_stays_below_the_most(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MAPPING", 16)  # pages: several mappings
    draw, arena = random.Random(seed), Arena()
    held: list[tuple[Lent, int]] = []
    most = 0
    with arena.keeping():
        for value in range(300):
            if held and draw.random() < 0.5:
                array, expected = held.pop(draw.randrange(len(held)))
                assert (array == expected).all()
                del array
                continue
            held.append((lend(arena, draw.randint(1, 9), value), value))
            most = max(most, sum(-(-array.nbytes // PAGE) for array, _ in held))
            found = sum(m.count(module._IDLE) + m.count(module._LENT) for m in arena._mappings)
            assert found <= most
            assert resident(arena) <= most
        assert all((array == value).all() for array, value in held)
    kept = sum(-(-array.nbytes // PAGE) for array, _ in held)
    assert resident(arena) <= kept


@needs_linux
def test_memory_is_kept_within_the_block_alone() -> None:
    arena = Arena()
    small = lend(arena, 1)
    with arena.keeping():
        with arena.keeping():
            large = lend(arena, 20)
            place = large.ctypes.data
            del large
            assert resident(arena) == 21
            # Two arrays of another size have the same memory.
            parts = [lend(arena, 10)]
            assert resident(arena) == 21
            parts.append(lend(arena, 10))
            assert sorted(part.ctypes.data - place for part in parts) == [0, 10 * PAGE]
            del parts
        assert resident(arena) == 21  # the inner block leaves it to the outer one
        large = lend(arena, 20)
        assert large.ctypes.data == place
        arena.release()
    assert resident(arena) == 21
    del large
    assert resident(arena) == 1
    del small
    assert not arena._mappings


@needs_linux
def test_idle_memory_is_released_before_more_is_taken() -> None:
    arena = Arena()
    with arena.keeping():
        first, between, third = lend(arena, 5), lend(arena, 1), lend(arena, 5)
        del first, third  # two gaps of 5 pages
        large = lend(arena, 10)
        assert resident(arena) == 11
        assert (between == 0).all()
        assert (large == 0).all()


def test_memory_that_is_kept_comes_before_new_memory() -> None:
    arena = Arena()
    first, between, kept, last = (lend(arena, size) for size in (5, 1, 6, 1))
    del first  # a gap of new memory
    with arena.keeping():
        place = kept.ctypes.data
        del kept
        assert lend(arena, 5).ctypes.data == place
    assert (between == last).all()


def test_an_array_that_is_deleted_while_the_lock_is_held_comes_back_later() -> None:
    arena = Arena()
    with arena.keeping():
        array = lend(arena, 3)
        place = array.ctypes.data
        with arena._lock:
            del array  # the garbage collector may do this at any moment
        assert lend(arena, 3).ctypes.data == place
    first, second = lend(arena, 3), lend(arena, 3)
    with arena._lock:
        del first
    assert arena._returned
    del second
    assert not arena._mappings


def test_many_threads_borrow_at_once() -> None:
    arena, failed = Arena(), list[int]()

    def work(own: int) -> None:
        for step in range(60):
            value = 1_000 * own + step
            array = lend(arena, 1 + (own + step) % 3, value)
            gc.collect(0)
            if not (array == value).all():
                failed.append(value)

    with arena.keeping():
        threads = [threading.Thread(target=work, args=(own,)) for own in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failed
    assert not arena._mappings


def test_no_address_space_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(mmap, "mmap", refused)
    with pytest.raises(MemoryError, match="address space"):
        lend(Arena(), 1)
