"""The map of `cdd map`: nodes in two dimensions by their embeddings, in colors."""
