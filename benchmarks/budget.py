"""Does a run keep its predicted peak, and is a smaller budget refused?

python benchmarks/budget.py [kg.csv]   (without a file: a synthetic graph of PrimeKG's size)

Runs several plans of both models, each in a fresh process with exactly the predicted memory as its
budget, and prints prediction and measured peak; then with a little less, which must be refused.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from measure import edges_file, in_fresh_process, run

NUM_EPOCHS = 3
PLANS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("graphsage", {}),
    ("graphsage", {"hidden_dim": 128}),
    ("graphsage", {"num_layers": 2}),
    ("graphsage", {"embedding_dim": 256, "edge_batch_size": 100_000}),
    ("graphsage", {"training": "sampled"}),
    ("hgt", {}),
    ("hgt", {"hidden_dim": 128}),
    ("hgt", {"num_layers": 3}),
    ("hgt", {"embedding_dim": 128, "edge_sample_size": 200}),
    ("hgt", {"training": "sampled"}),
)


def embed(arguments: list[str]) -> dict[str, float]:
    """Embed with a budget, and return whether it was accepted and the predicted and real peak."""
    from clinical_drug_discovery.lib.gnn_embeddings import generate_gnn_embeddings
    from clinical_drug_discovery.lib.gnn_hgt import generate_hgt_embeddings
    from clinical_drug_discovery.system.errors import InputError

    path, model, budget, sizes = arguments
    functions: dict[str, Any] = {
        "graphsage": generate_gnn_embeddings,
        "hgt": generate_hgt_embeddings,
    }
    limits = {} if budget == "none" else {"memory_budget": int(budget)}
    with tempfile.TemporaryDirectory() as directory, contextlib.suppress(InputError):
        stats = functions[model](
            path,
            Path(directory) / "e.npy",
            num_epochs=NUM_EPOCHS,
            ranker=False,
            **limits,
            **json.loads(sizes),
        )
        return {
            "ran": 1,
            "predicted": stats["predicted_memory_gib"],
            "peak": stats["peak_memory_gib"],
        }
    return {"ran": 0, "predicted": 0, "peak": 0}


def main() -> None:
    with edges_file(sys.argv[1] if sys.argv[1:] else None) as path:
        in_fresh_process(__file__, "embed", path, "graphsage", "none", "{}")  # the graph is cached
        for model, sizes in PLANS:
            # With the default chunk_size, a smaller budget would lead to smaller chunks.
            sizes = {"chunk_size": 32_768, **sizes}
            given = path, model, "none", json.dumps(sizes)
            free = in_fresh_process(__file__, "embed", *given)
            # Two processes differ a little in their size at the start.
            edge = int((free["predicted"] + 0.01) * 2**30)
            kept = in_fresh_process(__file__, "embed", path, model, edge, json.dumps(sizes))
            less = int((free["predicted"] - 0.02) * 2**30)
            refused = in_fresh_process(__file__, "embed", path, model, less, json.dumps(sizes))
            print(
                f"{model} {sizes}: predicted {kept['predicted']:.2f} GiB, measured "
                f"{kept['peak']:.2f} GiB ({kept['predicted'] / kept['peak']:.2f}), "
                f"{'within' if 0 < kept['peak'] * 2**30 <= edge else 'OVER'} its budget, "
                f"with less {'run' if refused['ran'] else 'refused'}",
                flush=True,
            )


if __name__ == "__main__":
    run({"embed": embed}, main)
