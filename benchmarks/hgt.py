"""What does an epoch of HGT cost, the embedding of all nodes, and how much memory?

python benchmarks/hgt.py [kg.csv]   (without a file: a synthetic graph of PrimeKG's size)

Prints seconds and their ratio to Y, one torch.sparse.mm of the graph's CSR matrix with 256 float32
columns, measured in the same run: machines differ and are noisy, ratios travel.
"""

from __future__ import annotations

from measure import embed, report_embedding, run, yardstick

NUM_EPOCHS = 8


def embed_graph(arguments: list[str]) -> dict[str, float]:
    from clinical_drug_discovery.lib.gnn_hgt import generate_hgt_embeddings

    return embed(generate_hgt_embeddings, arguments[0], NUM_EPOCHS)


if __name__ == "__main__":
    run({"yardstick": yardstick, "embed": embed_graph}, lambda: report_embedding(__file__))
