"""The decorator of the CPU kernels: compiled by numba, and kept in a cache that can be trusted.

numba's cache holds pickles, which can run any code, and numba does not flush them to the disk. So
the cache is used only if root or this user owns it, a damaged kernel is compiled again, and a cache
that cannot be written is a message instead of an error.

numba keeps the kernels beside their source, or in the user's cache directory if it cannot write
there. A user of such an installation then reads the kernels that its owner has compiled.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numba
from numba.core import config
from numba.core.caching import FunctionCache, IndexDataCacheFile

_problems: dict[str, None] = {}  # messages about damaged kernels, in order and each once
_without: list[str] = []  # reasons why kernels of this process are not cached


def kernel(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Return a decorator that compiles a function on its first call, and caches the result.

    Args:
        **options: of `numba.njit`, except `cache`.
    """

    def compiled(function: Callable[..., Any]) -> Any:
        dispatcher = numba.njit(**options)(function)
        try:
            dispatcher._cache = KernelCache(function)
        except _UntrustedError as error:
            _without.append(str(error))
        except (OSError, RuntimeError):  # numba found no directory that can be written
            _without.append(
                "numba lacks a directory for its cache; set NUMBA_CACHE_DIR to a directory that "
                "you can write to"
            )
        return dispatcher

    return compiled


def take_problems() -> list[str]:
    """Return the messages about damaged kernels since the last call."""
    found = list(_problems)
    _problems.clear()
    return found


def is_cached(dispatcher: Any) -> bool:
    """Return whether the cache holds a kernel for this CPU, complete and from its present source.

    A damaged entry is removed.
    """
    cache = dispatcher._cache
    return isinstance(cache, KernelCache) and cache.holds(dispatcher.targetctx.codegen())


def why_no_cache() -> str | None:
    """Return why some kernels cannot be kept in a cache; None if all can."""
    return _without[0] if _without else None


class _UntrustedError(OSError):
    """Another user could have written a file of the cache."""


class KernelCache(FunctionCache):
    """numba's cache of a function, in which damaged entries count as missing.

    Raises:
        OSError, RuntimeError: the cache cannot be used.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)  # type: ignore[no-untyped-call]  # numba's
        self._check_owner()
        source = Path(function.__code__.co_filename)
        base, stamp = self._impl.filename_base, _stamp(source.parent)
        self._cache_file = IndexDataCacheFile(self._cache_path, base, stamp)
        installed, self._installed = source.parent / "__pycache__", None
        if not config.CACHE_DIR and installed != Path(self._cache_path):  # type: ignore[attr-defined]  # numba's
            self._installer = source.stat().st_uid
            self._installed = IndexDataCacheFile(str(installed), base, stamp)

    def holds(self, codegen: Any) -> bool:
        """Return whether the cache holds all entries of its index for a CPU, complete."""
        target = codegen.magic_tuple()
        try:
            self._check_owner()
            if _is_complete(self._cache_file, target):
                return True
        except Exception as error:  # pickle raises errors of many kinds
            self._discard(error)
            return False
        return bool(self._of_installation(lambda file: _is_complete(file, target)))

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return a compiled version, or None if the cache does not have it or it is damaged."""
        try:
            self._check_owner()
            found = super().load_overload(sig, target_context)  # type: ignore[no-untyped-call]  # numba's
        except Exception as error:
            self._discard(error)
            return None
        if found is not None:
            return found
        key = self._index_key(sig, target_context.codegen())  # type: ignore[no-untyped-call]  # numba's

        def rebuilt(file: Any) -> Any:
            data = file.load(key)
            return None if data is None else self._impl.rebuild(target_context, data)

        return self._of_installation(rebuilt)

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep a compiled version, if the disk allows it."""
        try:
            super().save_overload(sig, data)  # type: ignore[no-untyped-call]  # numba's
        except Exception as error:  # a damaged index is loaded before it is written
            self._discard(error)
            with suppress(Exception):  # such as a full disk, which is noted above
                super().save_overload(sig, data)  # type: ignore[no-untyped-call]  # numba's

    def _check_owner(self) -> None:
        _check_owner(Path(self._cache_path), self._impl.filename_base, {0, os.geteuid()})

    def _of_installation(self, read: Callable[[Any], Any]) -> Any:
        """Read the kernels beside the source; None if they do not exist or cannot be used.

        Whoever owns the source can run any code in this process, so these kernels add no risk.
        """
        if self._installed is None:
            return None
        directory = Path(self._installed._cache_path)
        try:
            trusted = {0, os.geteuid(), self._installer}
            _check_owner(directory, self._impl.filename_base, trusted)
            return read(self._installed)
        except Exception as error:
            _problems[f"a kernel in {directory} cannot be used ({_described(error)})"] = None
            return None

    def _discard(self, error: Exception) -> None:
        """Remove the index, so that the kernel is compiled again, and note the reason."""
        if isinstance(error, _UntrustedError):
            _problems[str(error)] = None
            return
        what = f"a kernel in numba's cache {self._cache_path}"
        _problems[f"{what} cannot be used ({_described(error)})"] = None
        with suppress(OSError):
            Path(self._cache_file._index_path).unlink()


def _stamp(directory: Path) -> tuple[tuple[str, float, int], ...]:
    """Return time and size of all sources of a directory: kernels inline functions of other files.

    numba looks at the kernel's own file only. So after an update of `simd.py` alone, as by
    `git pull`, it would load kernels with the code of before.
    """
    found = ((path.name, path.stat()) for path in sorted(directory.glob("*.py")))
    return tuple((name, stat.st_mtime, stat.st_size) for name, stat in found)


def _check_owner(directory: Path, base: str, trusted: set[int]) -> None:
    """Check who owns the files of a kernel.

    Raises:
        _UntrustedError: a file, or the directory, belongs to a user who is not trusted.
    """
    for path in (directory, *directory.glob(f"{base}.*")):
        with suppress(FileNotFoundError):  # another process has replaced it
            found = path.stat() if path == directory else path.lstat()
            if found.st_uid not in trusted:
                raise _UntrustedError(
                    f"numba's cache {directory} is not used, because {path.name} belongs to "
                    "another user; set NUMBA_CACHE_DIR to a directory of your own"
                )


def _is_complete(file: Any, target: tuple[str, ...]) -> bool:
    """Return whether an index has entries for a CPU, and all of them can be read."""
    names = [name for key, name in file._load_index().items() if key[1] == target]
    try:
        for name in names:
            file._load_data(name)
    except FileNotFoundError:
        return False
    return bool(names)


def _described(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
