"""Several processes that train one model: what they exchange, and which of them speaks."""
