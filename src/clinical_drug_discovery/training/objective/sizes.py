"""The sizes of the terms of a step that compare nodes of one type, for the memory plan."""

from __future__ import annotations

from dataclasses import dataclass

from .near_pairs import NUM_NEAR
from .treatment_votes import MAX_ASKED, MAX_DRUGS, MAX_OWN, MAX_VOTERS, share_of_step


@dataclass(frozen=True)
class ComparedSizes:
    """Upper bounds of what a part of a step compares; the parts divide the samples of an epoch."""

    num_drugs: int  #: of the graph
    num_diseases: int  #: of the graph
    num_pairs: int  #: pairs of similar diseases in a part; 0 without a contrastive term
    num_parts: int  #: parts of the steps of an epoch

    def near(self, num_nodes: int) -> int:
        """Return the number of near pairs of a type with so many nodes."""
        return -(-min(NUM_NEAR, num_nodes) // self.num_parts)

    @property
    def voters(self) -> int:
        """Number of diseases in the term of votes."""
        return share_of_step(MAX_VOTERS, self.num_diseases, self.num_parts)

    @property
    def candidates(self) -> int:
        """Number of drugs in the term of votes."""
        return share_of_step(MAX_DRUGS, self.num_drugs, self.num_parts)

    @property
    def drug_ends(self) -> int:
        """Number of ends of pairs that are drugs; they may repeat."""
        return 2 * self.near(self.num_drugs)

    @property
    def disease_ends(self) -> int:
        """Number of ends of pairs that are diseases; they may repeat."""
        return 2 * (self.near(self.num_diseases) + self.num_pairs)

    @property
    def num_rows(self) -> int:
        """Number of embeddings that all terms read, with repetitions."""
        return self.drug_ends + self.disease_ends + self.voters + self.candidates

    def gradient_bytes(self, dim: int) -> int:
        """Return the bytes of the gradient of the distinct rows, of `dim` numbers each."""
        drugs = min(self.drug_ends + self.candidates, self.num_drugs)
        diseases = min(self.disease_ends + self.voters, self.num_diseases)
        return 4 * dim * (drugs + diseases)

    def num_bytes(self, dim: int) -> int:
        """Return the bytes for embeddings of `dim` numbers: one term is computed at a time."""
        near = max(self.near(self.num_drugs), self.near(self.num_diseases))
        vector, asked, own = 4 * dim, min(MAX_ASKED, self.voters), min(MAX_OWN, self.candidates)
        of_near = 9 * near * vector + 6 * near**2  # copies, gradients, and cosines of all pairs
        of_votes = self.voters * (5 * vector + 20 * asked)
        of_nearness = self.candidates * (5 * vector + 6 * own) + own * (vector + 20 * own)
        of_pairs = 8 * self.num_pairs * vector + 24 * self.num_pairs**2
        return self.gradient_bytes(dim) + max(of_near, of_votes, of_nearness, of_pairs)
