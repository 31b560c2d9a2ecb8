"""Node embeddings of biomedical knowledge graphs on one ordinary computer.

The two public verbs live in `clinical_drug_discovery.lib`; importing the package does nothing else.
"""
