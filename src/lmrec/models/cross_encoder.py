"""The reranker's model: (P, L) tokens of a history and an item, read together -> (P, C) outputs.

Unlike the retriever's two towers, every word of the history can attend to every word of the item, at the price of one pass
for each pair (Nogueira & Cho 2019, https://arxiv.org/abs/1901.04085). Any `AutoModelForSequenceClassification` will do,
BERT type (first token, pooler) or GPT type (last token).
"""

from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from lmrec.errors import RecipeError
from lmrec.fields import FloatArray, IntArray, Ragged
from lmrec.models.encoder import token_batches
from lmrec.models.language import quiet_loading
from lmrec.progress import Progress

PairTask: TypeAlias = Literal["binary", "classes", "regression"]
ReaderForm: TypeAlias = Literal["classifier", "yes_no", "likelihood"]


class PairModel(nn.Module):
    """What reads pairs: a model of transformers with something on top. `pad_id` fills rows at the right."""

    def __init__(self, backbone: nn.Module, pad_id: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.pad_id = pad_id

    @property
    def base(self) -> nn.Module:
        """The language model below what is on top."""
        base = self.backbone.base_model
        assert isinstance(base, nn.Module)
        return base

    @property
    def head(self) -> nn.ModuleList:
        """What was put on top for the task, mostly fresh."""
        return nn.ModuleList()


class CrossEncoder(PairModel):
    """A sequence classifier of transformers; C = 1 for a log-odds or a value, else a logit a class."""

    def __init__(self, backbone: nn.Module, pad_id: int) -> None:
        super().__init__(backbone, pad_id)
        config = backbone.config
        # GPT-type classifiers read the last token that is not this one: it must be the one that rows are filled with.
        config.pad_token_id = pad_id  # type: ignore[union-attr]
        self.marks_item = getattr(config, "type_vocab_size", 0) > 1

    @property
    def head(self) -> nn.ModuleList:
        return nn.ModuleList([part for part in self.backbone.children() if part is not self.base])

    def forward(self, token_ids: Tensor, token_mask: Tensor, item_start: Tensor) -> Tensor:
        """(P, L) ids, (P, L) mask, True = real, (P,) where the item begins -> (P, C) in fp32."""
        marks = {}
        if self.marks_item:
            places = torch.arange(token_ids.shape[1], device=token_ids.device)
            marks["token_type_ids"] = ((places >= item_start.unsqueeze(1)) & token_mask).long()
        found: Tensor = self.backbone(input_ids=token_ids, attention_mask=token_mask.long(), **marks).logits
        return found.float()


def load_cross_encoder(location: str | Path, n_outputs: int, pad_id: int, name: str = "") -> CrossEncoder:
    """A pretrained model with a classification head, fresh (drawn from torch's generator) where it has none of this size.

    Safetensors only, and code from model repositories is never run. Raises RecipeError where there is no such model.
    """
    from transformers import AutoModelForSequenceClassification

    try:
        with quiet_loading():
            backbone = AutoModelForSequenceClassification.from_pretrained(
                str(location),
                num_labels=n_outputs,
                trust_remote_code=False,
                use_safetensors=True,
                ignore_mismatched_sizes=True,
            )
    except (OSError, ValueError) as error:
        raise RecipeError(
            f"the reranker's language model '{name or location}' could not be loaded as a classifier: "
            f"{str(error).splitlines()[0]} Give a registry name, a folder, or a hub name of a model that transformers can "
            "put a classification head on"
        ) from error
    return CrossEncoder(backbone.float(), pad_id)


def pad_pairs(ids: Ragged, pad_id: int) -> tuple[Tensor, Tensor]:
    """Rows of token ids -> right-padded (P, L) ids and (P, L) mask."""
    lengths = ids.lengths
    mask = np.arange(lengths.max()) < lengths[:, None]
    padded = np.full(mask.shape, pad_id, np.int64)
    padded[mask] = ids.values
    return torch.from_numpy(padded), torch.from_numpy(mask)


@torch.no_grad()
def score_pairs(
    model: PairModel,
    ids: Ragged,
    item_start: IntArray,
    batch_tokens: int,
    progress: Progress | None = None,
) -> FloatArray:
    """(P, C) outputs of P pairs, those of like length together; bf16 where `torch.autocast` is on. The model is in eval."""
    device = next(model.parameters()).device
    found: FloatArray | None = None
    done = 0
    for batch in token_batches(ids, np.arange(len(ids)), batch_tokens):
        padded, mask = pad_pairs(ids.take(batch), model.pad_id)
        outputs = model(padded.to(device), mask.to(device), torch.from_numpy(item_start[batch]).to(device))
        own = outputs.float().cpu().numpy()
        if found is None:
            found = np.zeros((len(ids), own.shape[1]), np.float32)
        found[batch] = own
        done += len(batch)
        if progress is not None:
            progress(done, len(ids))
    return np.zeros((0, 1), np.float32) if found is None else found
