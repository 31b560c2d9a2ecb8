"""The library: graphs and models as objects. The package itself has these names, see `__all__`."""
