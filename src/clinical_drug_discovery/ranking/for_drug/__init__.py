"""The best diseases for a drug: its features for all diseases, and the search for the best."""
