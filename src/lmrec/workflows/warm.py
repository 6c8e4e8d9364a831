"""A learner that begins with the served weights, over the merged catalog."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from lmrec.artifacts.checkpoint import build_towers
from lmrec.data.catalog import Catalog
from lmrec.data.interactions import Interactions
from lmrec.fields import BoolArray, IntArray
from lmrec.models.encoder import TextEncoder, choose_trainable, encode_tokens
from lmrec.models.fusion import Fusion
from lmrec.models.two_tower import TwoTower
from lmrec.recipe import Recipe
from lmrec.retrieval.recommender import Recommender
from lmrec.text.tokens import tokenize_texts
from lmrec.training.learner import Learner
from lmrec.training.trend import go_on_from
from lmrec.workflows.encode import PretrainedText
from lmrec.workflows.train import history_tokens, learnt_weight, objective_over

_RESIDUAL, _SEEN = "item_tower.id_residual.weight", "item_tower.item_seen"
_NEW_ID_STD = 0.05  # as a fresh id-only tower is drawn


@dataclass(frozen=True, eq=False)
class WarmStart:
    """The learner, and the language model that it shares with the served generation."""

    learner: Learner
    source: PretrainedText
    encoder: TextEncoder
    can_tune: bool


def warm_start(
    served: Recommender, catalog: Catalog, old_rows: IntArray, learnt: Interactions, recipe: Recipe
) -> WarmStart:
    """old_rows: (N,) each item's row in the served catalog, or -1. learnt: what the candidate will learn from.

    Until it is trained the learner scores as the served model does, new items by their words alone.
    """
    checkpoint = served.checkpoint
    encoder, tokenizer = checkpoint.load_encoder("learn"), checkpoint.load_tokenizer()
    config = checkpoint.configs.encoder
    texts = checkpoint.template.render_items(catalog.frame)
    source = PretrainedText(
        checkpoint.folder / "encoder", config, tokenizer, texts, tokenize_texts(tokenizer, texts, config.max_tokens)
    )
    text_vec = _text_vectors(served, source, encoder, old_rows)
    counts = np.bincount(learnt.item_idx, minlength=catalog.n_items)
    objective = objective_over(learnt, catalog.n_items, recipe)
    can_tune = bool(choose_trainable(encoder, config)) and checkpoint.configs.item.source != "id"
    learner = Learner(
        carry_over(served, old_rows, counts > 0),
        encoder,
        source.tokens.ids,
        text_vec,
        config,
        recipe.training.max_encoded_items,
        history_tokens(source, checkpoint.template),
        recipe.masks_seen,
        objective=go_on_from(objective, learnt_weight(served.run)),
        regularisers=recipe.regularisers,
        adversarial=recipe.adversarial,
    )
    return WarmStart(learner, source, encoder, can_tune and recipe.update.tuned_epochs > 0)


def carry_over(served: Recommender, old_rows: IntArray, seen: BoolArray) -> TwoTower:
    """The served towers over other items: an id residual follows its item's id and is zero for new items.

    seen: (N,) items that will have events to learn from; those that the served towers have seen are seen too.
    """
    weights = served.towers.state_dict()
    known = torch.from_numpy(old_rows >= 0)
    rows = torch.from_numpy(np.asarray(old_rows[old_rows >= 0], np.int64))
    item_seen = torch.from_numpy(np.asarray(seen, np.bool_)).clone()
    item_seen[known] |= weights[_SEEN][rows]
    carried = {**weights, _SEEN: item_seen}
    configs = served.checkpoint.configs
    if _RESIDUAL in weights:
        residual = weights[_RESIDUAL].new_zeros(len(old_rows), weights[_RESIDUAL].shape[1])
        if configs.item.source == "id":
            # Alone, ids need to differ from each other; beside words zero says "as its words".
            torch.nn.init.normal_(residual, std=_NEW_ID_STD, generator=torch.Generator().manual_seed(0))
        residual[known] = weights[_RESIDUAL][rows]
        carried[_RESIDUAL] = residual
    towers = build_towers(len(old_rows), served.checkpoint.text_width, configs)
    towers.load_state_dict(carried)
    return towers


def carry_fusion(served: Fusion, old_rows: IntArray) -> Fusion:
    """The served fusion over other items: what is counted among the items that it knows, and their popularity. Who borrows of
    whom is to be found anew."""
    popularity = None
    if served.popularity is not None:
        popularity = np.where(old_rows >= 0, np.append(served.popularity, 0.0)[old_rows], np.nan)
    return replace(
        served,
        neighbours={kind: table.moved(old_rows) for kind, table in served.neighbours.items()},
        factors=served.factors and served.factors.moved(old_rows),
        popularity=popularity,
        loans=None,
    )


def _text_vectors(served: Recommender, source: PretrainedText, encoder: TextEncoder, old_rows: IntArray) -> Tensor:
    """(N, Dt): the served vectors where the words are the same, the language model's for the others."""
    old_texts = served.checkpoint.template.render_items(served.catalog.frame)
    same = np.array(
        [old >= 0 and old_texts[old] == text for old, text in zip(old_rows, source.texts, strict=True)], np.bool_
    )
    text_vec = torch.empty(len(old_rows), served.checkpoint.text_width)
    text_vec[torch.from_numpy(same)] = served.vectors.text_vec[torch.from_numpy(old_rows[same])]
    if not same.all():
        tokens = source.tokens.ids.take(np.flatnonzero(~same))
        fresh = encode_tokens(encoder, tokens, source.config.batch_tokens, torch.device("cpu"))
        text_vec[torch.from_numpy(~same)] = torch.from_numpy(fresh)
    return text_vec
