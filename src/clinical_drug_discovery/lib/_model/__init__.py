"""A saved model that embeds other graphs: its network, and graphs with added facts."""
