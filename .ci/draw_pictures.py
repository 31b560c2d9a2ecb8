"""Draw the pictures of the README and of the guide to maps, from the sample graph.

python .ci/draw_pictures.py docs/_static
"""

import sys
import tempfile
from pathlib import Path

import clinical_drug_discovery as cdd
from clinical_drug_discovery.show.map.draw_map import draw_map
from clinical_drug_discovery.show.plot.inline_svg import file_bytes

DRUG, DISEASE = "Fluoxetine", "generalized anxiety disorder"


def main(directory: Path) -> None:
    """Train a model on the sample graph and write the pictures."""
    data = Path(cdd.__file__).parent / "data"
    with tempfile.TemporaryDirectory() as folder:
        stats = cdd.generate_gnn_embeddings(data / "sample_kg.csv", Path(folder, "sample.parquet"))
        for name, choice in {
            "drug_map": {"color_by": "class", "features": data / "sample_drug_classes.csv"},
            "disease_map": {"type": "disease", "color_by": "area"},
        }.items():
            output = directory / f"{name}.svg"
            draw_map(stats["output_file"], output, overwrite=True, **choice)
        explanation = cdd.load_model(stats["model_dir"]).explain(DRUG, DISEASE)
    figure = cdd.plot.evidence(explanation)
    (directory / "evidence.svg").write_bytes(file_bytes(figure, "svg"))
    print(f"Wrote drug_map.svg, disease_map.svg and evidence.svg to {directory}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
