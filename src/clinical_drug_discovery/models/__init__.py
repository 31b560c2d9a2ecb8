"""The models: GraphSAGE, HGT, their layers and initial weights, inference, embedding files."""
