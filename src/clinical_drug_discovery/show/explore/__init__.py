"""The explorer: a local page that asks a trained model."""
