"""What turns words into text vectors where a run answers: questions, new items, histories that are read as text."""

from dataclasses import dataclass, field
from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from lmrec.artifacts.checkpoint import Checkpoint
from lmrec.artifacts.encoder_files import exported_folder
from lmrec.data.catalog import Catalog
from lmrec.errors import InputError
from lmrec.fields import Ragged
from lmrec.models.runtime import EncoderRuntime, answering_candidates, choose_runtime, encode_unique, exact_runtime
from lmrec.text.tokens import tokenize_texts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_SAMPLE = 512  # items of the catalog of whose texts the gate takes short, middling and long ones


@dataclass(frozen=True, eq=False)
class WordEncoder:
    """A run's language model as its recipe's `encoder.runtime` runs it; made when words first come, once for all threads."""

    checkpoint: Checkpoint
    catalog: Catalog
    _making: Lock = field(default_factory=Lock, init=False, repr=False)

    def encode(self, texts: list[str]) -> Tensor:
        """(n, Dt) vectors of rendered texts, of length one."""
        return torch.from_numpy(
            encode_unique(self.runtime, self._tokens(texts), self.checkpoint.configs.encoder.batch_tokens)
        )

    def check_whole(self, words: list[str]) -> None:
        """Raises InputError where words of a user are longer than what is read: they are never cut."""
        max_tokens = self.checkpoint.configs.encoder.max_tokens
        for text in words:
            if tokenize_texts(self._tokenizer, [text], max_tokens).n_cut:
                raise InputError(
                    f"profile: its words ('{text:.80}...') take more than the {max_tokens} tokens that are read. Say less"
                )

    @property
    def runtime(self) -> EncoderRuntime:
        """What the recipe names, or, where that is not to be had or is unfaithful on the catalog's own texts, fp32 by torch."""
        with self._making:
            return self._runtime

    @cached_property
    def _runtime(self) -> EncoderRuntime:
        config = self.checkpoint.configs.encoder
        encoder, names = self.checkpoint.load_encoder(), answering_candidates(config.runtime)
        if names == ["torch-fp32"]:
            return exact_runtime(encoder, self._sample())
        exported = exported_folder(self.checkpoint.folder / "encoder", config.pooling)
        return choose_runtime(names, encoder, exported, self._sample())

    @cached_property
    def _tokenizer(self) -> "PreTrainedTokenizerBase":
        return self.checkpoint.load_tokenizer()

    def _tokens(self, texts: list[str]) -> Ragged:
        return tokenize_texts(self._tokenizer, texts, self.checkpoint.configs.encoder.max_tokens).ids

    def _sample(self) -> Ragged:
        """Tokens of texts of the catalog, evenly spread over it."""
        n_items = self.catalog.n_items
        rows = np.unique(np.linspace(0, n_items - 1, min(_SAMPLE, n_items)).astype(np.int64))
        return self._tokens(self.checkpoint.template.render_items(self.catalog.frame[rows]))
