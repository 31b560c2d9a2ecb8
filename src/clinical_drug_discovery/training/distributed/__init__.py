"""The state of a training that several processes share."""
