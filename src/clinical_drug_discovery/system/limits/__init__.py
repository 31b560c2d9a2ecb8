"""Limits: of the memory of a process, of the disk space of the cache, and of parameters."""
