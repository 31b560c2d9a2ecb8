"""Training: batches, losses, the optimizer, the training loops and the memory plan."""
