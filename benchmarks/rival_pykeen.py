"""Train a model of PyKEEN on a split that quality.py --rivals has written.

In an environment of its own (pip install pykeen polars):
python benchmarks/rival_pykeen.py DIR/pair-0 --model ComplEx --minutes 10 [--dim 128]

Every edge type is a relation, and so is its reverse. Held-out pairs are missing in both directions.
Training ends with the first batch after the time is over.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import polars as pl
import torch
from pykeen.models import ComplEx, DistMult, RotatE, TransE
from pykeen.training import SLCWATrainingLoop
from pykeen.training.callbacks import TrainingCallback
from pykeen.triples import TriplesFactory

MODELS = {
    "ComplEx": (ComplEx, "softplus"),
    "DistMult": (DistMult, "softplus"),
    "RotatE": (RotatE, "nssa"),
    "TransE": (TransE, "nssa"),
}


class Deadline(TrainingCallback):  # type: ignore[misc]  # PyKEEN is not installed here
    """End the training after a batch when the time is over."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.end = time.perf_counter() + seconds

    def post_batch(self, *arguments: object, **keywords: object) -> None:
        """Raise TimeoutError when the time is over."""
        if time.perf_counter() > self.end:
            raise TimeoutError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("split", type=Path)
    parser.add_argument("--model", choices=MODELS, default="ComplEx")
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=8192)
    parser.add_argument("--num-negatives", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=0.01)
    arguments = parser.parse_args()
    split = json.loads((arguments.split / "split.json").read_text())
    train = pl.read_parquet(arguments.split / "train.parquet")
    triples = torch.from_numpy(train.select("src", "relation", "dst").to_numpy().astype(np.int64))
    num_relations = int(triples[:, 1].max()) + 1
    factory = TriplesFactory(
        mapped_triples=triples,
        entity_to_id={str(i): i for i in range(split["num_nodes"])},
        relation_to_id={str(i): i for i in range(num_relations)},
    )
    kind, loss = MODELS[arguments.model]
    dim = arguments.dim // 2 if arguments.model in ("ComplEx", "RotatE") else arguments.dim
    model = kind(triples_factory=factory, embedding_dim=dim, loss=loss, random_seed=0)
    loop = SLCWATrainingLoop(
        model=model,
        triples_factory=factory,
        optimizer="Adam",
        optimizer_kwargs={"lr": arguments.learning_rate},
        negative_sampler_kwargs={"num_negs_per_pos": arguments.num_negatives},
    )
    start = time.perf_counter()
    try:
        loop.train(
            factory,
            num_epochs=10_000,
            batch_size=arguments.batch_size,
            use_tqdm=False,
            callbacks=Deadline(60 * arguments.minutes),
        )
    except TimeoutError:
        print(f"{arguments.model}: trained for {time.perf_counter() - start:.0f} s")
    forth, back = split["indication"]
    drugs = split["first_drug"] + torch.arange(split["num_drugs"])
    model.eval()
    rows = []
    with torch.no_grad():
        for disease in pl.read_parquet(arguments.split / "asked.parquet")["disease"].to_list():
            same = torch.full_like(drugs, disease)
            one_way = torch.stack([drugs, torch.full_like(drugs, forth), same], dim=1)
            other_way = torch.stack([same, torch.full_like(drugs, back), drugs], dim=1)
            rows.append((model.score_hrt(one_way) + model.score_hrt(other_way))[:, 0].numpy())
    name = f"PyKEEN {arguments.model} {arguments.minutes:g} min"
    np.save(arguments.split / f"{name}.npy", np.stack(rows).astype(np.float32))


if __name__ == "__main__":
    main()
