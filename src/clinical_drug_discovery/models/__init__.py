"""The models: GraphSAGE, HGT, their layers and first weights, inference, embedding files."""
