"""File formats of knowledge graphs: one small file per format; `registry.py` lists them."""
