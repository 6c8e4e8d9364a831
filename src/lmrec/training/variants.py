"""Several texts of each item while training: a step reads one of them, drawn anew, in place of the item's own.

In the frozen stage the variants' vectors are computed once and each step draws, for every item, its own vector or one of
its variants' by equal chances. In the tuned stage the items that are encoded with gradient read a drawn variant's tokens:
the gradient that their own vector asked for is passed on through other words that mean the same. The cache is rebuilt from
the items' own texts after each epoch, so what is validated, kept and served never holds a variant.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lmrec.fields import IntArray, Ragged


@dataclass(frozen=True, eq=False)
class TextVariants:
    """V variants of N texts. text_vec: (V, N, Dt). tokens: V * N rows, variant v of item i in row v * N + i."""

    text_vec: Tensor
    tokens: Ragged

    @property
    def n_items(self) -> int:
        return self.text_vec.shape[1]

    def draw_vectors(self, own: Tensor, rng: np.random.Generator) -> Tensor:
        """(N, Dt): of each item its own vector, or a variant's."""
        number = torch.from_numpy(self.draw_numbers(self.n_items, rng))
        places = (number >= 0).nonzero().squeeze(1)
        drawn = own.clone()
        drawn[places.to(own.device)] = self.text_vec[number[places], places].to(own)
        return drawn

    def draw_numbers(self, n: int, rng: np.random.Generator) -> IntArray:
        """(n,) numbers of variants; -1 stands for the item's own text."""
        return rng.integers(-1, len(self.text_vec), n)
