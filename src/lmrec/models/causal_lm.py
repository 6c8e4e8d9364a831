"""GPT-type models as readers of pairs: they answer yes or no, or say how likely a title is after a history.

`YesNoReader` is what a classifier is elsewhere: the log-odds of "yes" against "no" as the next token after a question
(TALLRec, Bao et al. 2023, https://arxiv.org/abs/2305.00447). `score_continuations` needs no training: log p(title | history)
a token, and since the history is the same for all K candidates, it is read once and its keys and values are kept.
"""

import copy
import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from lmrec.errors import RecipeError
from lmrec.fields import FloatArray, IntArray, Ragged
from lmrec.models.cross_encoder import PairModel, pad_pairs
from lmrec.models.encoder import looks_back_only, token_batches
from lmrec.models.language import has_new_head, quiet_loading

if TYPE_CHECKING:
    from transformers import PreTrainedModel


_SAME = 1e-3  # odds that two ways give


class YesNoReader(PairModel):
    """(P, L) tokens that end in a question -> (P, 1) log p("yes") - log p("no") of the next token.

    Raises RecipeError for a model that does more to its logits than a linear layer, such as scaling or capping them.
    """

    def __init__(self, backbone: nn.Module, pad_id: int, answers: tuple[int, int]) -> None:
        super().__init__(backbone, pad_id)
        self.answers = answers  # the tokens of yes and of no
        self._check_logits()

    def forward(self, token_ids: Tensor, token_mask: Tensor, item_start: Tensor) -> Tensor:
        """item_start is not needed: the question's words tell where the item is."""
        hidden = self.base(input_ids=token_ids, attention_mask=token_mask.long(), use_cache=False).last_hidden_state
        last = hidden[torch.arange(len(hidden), device=hidden.device), token_mask.long().sum(1) - 1]
        head: nn.Linear = self.backbone.get_output_embeddings()  # type: ignore[operator]
        yes, no = self.answers
        odds: Tensor = last.float() @ (head.weight[yes] - head.weight[no]).float()
        if head.bias is not None:
            odds = odds + (head.bias[yes] - head.bias[no]).float()
        return odds.unsqueeze(1)

    @torch.no_grad()
    def _check_logits(self) -> None:
        """Against the model's own, of one token."""
        ids, (yes, no) = torch.tensor([[self.answers[0]]]), self.answers
        logits = self.backbone(input_ids=ids, use_cache=False).logits[0, -1]
        found = float(self(ids, torch.ones_like(ids, dtype=torch.bool), torch.zeros(1, dtype=torch.long)))
        if abs(found - float(logits[yes] - logits[no])) > _SAME * (1 + abs(found)):
            raise RecipeError(
                f"a {type(self.backbone).__name__} scales or caps its logits, so yes and no cannot be read from its last layer "
                "alone. Name another model (reranker.name), or set reranker.form to 'classifier'"
            )


def load_causal_lm(location: str | Path, name: str = "") -> "PreTrainedModel":
    """A language model that writes, in fp32. Safetensors only; code from model repositories is never run.

    Raises RecipeError where the name leads to none.
    """
    from transformers import AutoModelForCausalLM

    auto: Any = AutoModelForCausalLM
    try:
        with quiet_loading():  # whose weights do not fit is told below
            model, info = auto.from_pretrained(
                str(location), trust_remote_code=False, use_safetensors=True, output_loading_info=True
            )
    except (OSError, ValueError) as error:
        raise RecipeError(
            f"'{name or location}' could not be loaded as a language model that writes: {str(error).splitlines()[0]} Give a "
            "GPT-type model, such as SmolLM2-135M-Instruct, a folder, or a hub name"
        ) from error
    loaded: PreTrainedModel = nn.Module.eval(nn.Module.float(model))
    if not looks_back_only(loaded):
        raise RecipeError(
            f"'{name or location}' reads in both directions, so it does not write. Give a GPT-type model, such as "
            "SmolLM2-135M-Instruct, or set reranker.form to 'classifier'"
        )
    if has_new_head(loaded, info["missing_keys"]):
        raise RecipeError(
            f"'{name or location}' holds no layer that guesses words, and its embeddings are not used as one: it reads, and "
            "does not write. Name the model as it was published (reranker.name), or set reranker.form to 'classifier'"
        )
    return loaded


@torch.no_grad()
def score_continuations(
    model: nn.Module, prefix: IntArray, continuations: Ragged, pad_id: int, batch_tokens: int
) -> FloatArray:
    """(K,) mean log p a token, in nats, of K continuations after one prefix of at least one token.

    The prefix is read once. batch_tokens: padded tokens of continuations in one pass, on each of which the prefix's keys and
    values are repeated. The model is in eval. The mean, not the sum: a long title is not unlikely because it is long.
    """
    device, kept = next(model.parameters()).device, _name_of_kept(model)
    ids = torch.from_numpy(np.asarray(prefix, np.int64)).to(device).unsqueeze(0)
    read = model(input_ids=ids, use_cache=True, logits_to_keep=1)
    first = read.logits[0, -1].float().log_softmax(-1)  # (V,) after the prefix
    scores = np.zeros(len(continuations), np.float64)
    for rows in token_batches(continuations, np.flatnonzero(continuations.lengths), batch_tokens):
        part = continuations.take(rows)
        tokens, mask = (one.to(device) for one in pad_pairs(part, pad_id))
        known = copy.deepcopy(read[kept])
        known.batch_repeat_interleave(len(rows))
        seen = torch.cat([mask.new_ones(len(rows), ids.shape[1]), mask], dim=1).long()
        logits = model(input_ids=tokens, attention_mask=seen, use_cache=True, **{kept: known}).logits.float()
        scores[rows] = _mean_log_likelihood(first, logits, tokens, mask).cpu().numpy()
    scores[continuations.lengths == 0] = scores.min(initial=0.0)  # of whom nothing is said, nothing is likely
    return scores


def _name_of_kept(model: nn.Module) -> str:
    """What this version of transformers calls keys and values that are passed on."""
    return "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"


def _mean_log_likelihood(first: Tensor, logits: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
    """(K,) from what is likely after the prefix (V,), and (K, T, V) after each token of the continuations (K, T)."""
    later = logits[:, :-1].log_softmax(-1).gather(2, tokens[:, 1:, None]).squeeze(2)
    each = torch.cat([first[tokens[:, :1]], later], dim=1) * mask
    return each.sum(1) / mask.sum(1).clamp(min=1)
