"""The loss of a step: link prediction, and terms that compare nodes of one type."""
