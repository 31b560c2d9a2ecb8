"""Text, JSON and lists from strangers: bounded, and harmless for terminals and spreadsheets."""
