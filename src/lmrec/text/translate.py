"""Texts translated into another language and back: other words, the same meaning.

Through two sequence-to-sequence models of transformers, one for each direction, such as Marian's: one that must be told its
languages (M2M100, NLLB) or its task in words (T5) is not told them. Words are sampled, not
searched for: the likeliest translation back is often the text itself, and sampled ones teach more (Edunov et al. 2018,
https://arxiv.org/abs/1808.09381). Sennrich et al. 2016, https://arxiv.org/abs/1511.06709.
What is drawn follows from the text and the seed alone, so that a few texts are said as they are among all.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lmrec.errors import RecipeError
from lmrec.progress import Progress
from lmrec.text.augment import rng_of

if TYPE_CHECKING:
    from torch import Tensor

_BATCH = 32
_TOP_K = 10  # of the likeliest next tokens, one is drawn: wilder draws change the meaning


@dataclass(frozen=True)
class Translator:
    """One direction: a model and its tokenizer."""

    model: Any
    tokenizer: Any
    max_tokens: int

    def translate(self, texts: Sequence[str], seed: int, progress: Progress | None = None) -> list[str]:
        """Each text in the model's target language; the same seed gives the same words. Blank texts stay blank."""
        import torch

        said = list(texts)
        asked = sorted((i for i, text in enumerate(texts) if text.strip()), key=lambda i: len(texts[i]))
        with torch.no_grad():
            for start in range(0, len(asked), _BATCH):
                rows = asked[start : start + _BATCH]
                batch = self.tokenizer(
                    [texts[i] for i in rows],
                    padding=True,
                    truncation=True,
                    max_length=self.max_tokens,
                    return_tensors="pt",
                )
                ids = self.model.generate(
                    input_ids=batch["input_ids"],
                    attention_mask=batch["attention_mask"],
                    logits_processor=[partial(draw_tokens, [rng_of(texts[i], seed) for i in rows])],
                    do_sample=False,
                    num_beams=1,
                    max_new_tokens=self.max_tokens,
                )
                for row, text in zip(rows, self.tokenizer.batch_decode(ids, skip_special_tokens=True), strict=True):
                    said[row] = text
                if progress is not None:
                    progress(start + len(rows), len(asked))
        return said


def draw_tokens(rngs: "Sequence[np.random.Generator]", ids: "Tensor", scores: "Tensor") -> "Tensor":
    """(B, V) scores of the next token of B texts, of which the highest is then taken: noise of Gumbel's makes that a draw from
    the softmax over each text's _TOP_K likeliest (Maddison et al. 2014, https://arxiv.org/abs/1411.0030)."""
    import torch

    best = scores.topk(min(_TOP_K, scores.shape[1]), dim=1)
    noise = np.stack([rng.gumbel(size=best.values.shape[1]) for rng in rngs])
    drawn = best.values + torch.from_numpy(noise).to(best.values)
    return torch.full_like(scores, -torch.inf).scatter(1, best.indices, drawn)


def load_translator(location: str | Path, max_tokens: int) -> Translator:
    """Safetensors only; code from model repositories is never run. Raises RecipeError where it is no such model."""
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    try:
        model = AutoModelForSeq2SeqLM.from_pretrained(str(location), trust_remote_code=False, use_safetensors=True)
        tokenizer = AutoTokenizer.from_pretrained(str(location), trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise RecipeError(
            f"augment.words.back_translate '{location}' could not be loaded: {str(error).splitlines()[0]} Give two folders or "
            "hub names of sequence-to-sequence models, such as an English-French and a French-English one"
        ) from error
    if hasattr(tokenizer, "src_lang"):
        raise RecipeError(
            f"augment.words.back_translate '{location}' must be told its languages, and is not. Give one model for each "
            "direction, such as Marian's"
        )
    return Translator(model.float().eval(), tokenizer, max_tokens)
