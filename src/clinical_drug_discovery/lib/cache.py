"""List or clear the cache of graphs."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..system.arguments import plain_arguments
from ..system.limits.cache import cache_directory, cache_limit, cached_files, clear_files


@plain_arguments
def manage_cache(clear: bool = False, cache_dir: str | Path | None = None) -> dict[str, Any]:
    """List the cached graphs, or clear the cache.

    A run keeps the graph that it has read in the cache, and later runs load it from there. The
    graphs take at most 5 GB, or the size in the environment variable CDD_CACHE_SIZE, such as 20GB.
    If a new graph needs room, the graphs that were not used for the longest time are removed.

    Args:
        clear: remove all cached graphs.
        cache_dir: directory of the cached graphs (default: the environment variable CDD_CACHE_DIR,
            or the user's cache directory).

    Returns:
        directory; limit_bytes; total_bytes (of the graphs that are left); num_removed and
        bytes_removed; and graphs, a list with name, num_bytes and last_used (UTC) of each graph
        that is left, the most recently used first.

    Raises:
        InputError: CDD_CACHE_SIZE is not a size.

    Example:
        >>> from clinical_drug_discovery.lib.cache import manage_cache
        >>> manage_cache()["total_bytes"] <= manage_cache()["limit_bytes"]
        True
    """
    directory = cache_directory() if cache_dir is None else Path(cache_dir)
    limit = cache_limit()
    removed = clear_files(directory) if clear else []
    left = cached_files(directory)[::-1]
    return {
        "directory": str(directory),
        "limit_bytes": limit,
        "total_bytes": sum(one.num_bytes for one in left),
        "num_removed": len(removed),
        "bytes_removed": sum(one.num_bytes for one in removed),
        "graphs": [
            {
                "name": one.path.name,
                "num_bytes": one.num_bytes,
                "last_used": datetime.fromtimestamp(one.last_used, UTC).isoformat(" ", "seconds"),
            }
            for one in left
        ],
    }
