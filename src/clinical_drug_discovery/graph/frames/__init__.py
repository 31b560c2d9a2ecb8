"""Graphs as tables in memory: from data frames and back, and facts that are added to a graph."""
