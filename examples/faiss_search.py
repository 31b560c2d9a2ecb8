"""Search the nearest drugs with FAISS.

    pip install faiss-cpu
    python examples/faiss_search.py

The answers equal those of `model.similar`, which compares with all nodes one by one. FAISS also has
approximate indexes for millions of vectors.
"""

from __future__ import annotations

import faiss
import numpy as np

import clinical_drug_discovery as cdd

cdd.generate_gnn_embeddings(
    cdd.sample_graph(), "graphsage.parquet", num_epochs=10, ranker=False, overwrite=True
)
model = cdd.load_model("graphsage_model")

nodes, values = model.embeddings("drug")
faiss.normalize_L2(values)  # the inner product of unit vectors is the cosine
index = faiss.IndexFlatIP(values.shape[1])
index.add(values)

names = nodes["node_name"].to_list()
for name in ("Warfarin", "Metformin", "Sertraline"):
    at = names.index(name)
    cosines, found = index.search(values[at : at + 1], 6)
    order = [i for i in found[0] if i != at]  # without the drug itself
    print(f"{name}: {', '.join(names[i] for i in order)}")

    same = model.similar(name, top=5)
    assert [names[i] for i in order] == same["node_name"].to_list()
    np.testing.assert_allclose(cosines[0, found[0] != at], same["cosine"], atol=1e-5)
