"""Show what augmentation makes of a catalog's texts and of training histories, before anything is learnt."""

from dataclasses import dataclass
from itertools import chain

import numpy as np

from lmrec.data.catalog import Catalog
from lmrec.recipe import AugmentConfig, Recipe
from lmrec.text.template import build_template
from lmrec.training.batches import TrainBatch
from lmrec.workflows.augment import load_augmenter
from lmrec.workflows.prepare import Prepared
from lmrec.workflows.train import batch_source


@dataclass(frozen=True)
class ShownText:
    """An item's text and its variants, for a person to look at."""

    item_id: str
    text: str
    variants: tuple[str, ...]


@dataclass(frozen=True)
class ShownHistory:
    """A training history in its items' words, oldest first, and what it became: None stands for a hidden item."""

    kind: str
    before: tuple[str, ...]
    after: tuple[str | None, ...]


@dataclass(frozen=True)
class ShownHistories:
    """`shown` are some of the `n_changed` of `n` histories that the first epoch of a fit with this seed changes."""

    seed: int
    n: int
    n_changed: int
    shown: tuple[ShownHistory, ...]


def show_texts(catalog: Catalog, recipe: Recipe, n_shown: int, show: bool = True) -> list[ShownText]:
    """A seeded draw of items with the variants that a fit by this recipe would train on; none where words stay."""
    config = recipe.augment.words
    if not config.any:
        return []
    texts = build_template(recipe.template, catalog).render_items(catalog.frame)
    rng = np.random.default_rng(recipe.training.seed)
    rows = np.sort(rng.choice(catalog.n_items, min(n_shown, catalog.n_items), replace=False))
    augmenter = load_augmenter(config, recipe.training.seed, recipe.encoder.max_tokens, show)
    variants = augmenter.vary([texts[row] for row in rows])
    return [
        ShownText(catalog.ids[row], texts[row], tuple(variant[place] for variant in variants))
        for place, row in enumerate(rows)
    ]


def show_histories(prepared: Prepared, recipe: Recipe, n_shown: int) -> ShownHistories:
    """A seeded draw of the histories that a fit by this recipe changes in its first epoch, as its batches have them."""
    catalog, data = prepared.dataset.catalog, (prepared.split.train, prepared.dataset.impressions)
    texts = build_template(recipe.template, catalog).render_items(catalog.frame)
    plain = recipe.model_copy(update={"augment": AugmentConfig()})
    # A fit draws its batches alike with augmentation and without, so these stand side by side.
    before, after = (batch_source(one, *data)(0, 0) for one in (plain, recipe))
    pairs = zip(chain.from_iterable(map(_rows, before)), chain.from_iterable(map(_rows, after)), strict=True)
    changed = [(old, new) for old, new in pairs if old != new]
    rng = np.random.default_rng(recipe.training.seed)
    chosen = rng.permutation(len(changed))[:n_shown]
    shown = tuple(_in_words(*changed[int(at)], texts) for at in chosen)
    n = sum(len(batch.history_idx) for batch in before)
    return ShownHistories(recipe.training.seed, n, len(changed), shown)


def _rows(batch: TrainBatch) -> list[list[int | None]]:
    """Each history's items, None where one is hidden."""
    items = batch.history_idx.masked_fill(batch.hidden, -1) if batch.hidden is not None else batch.history_idx
    return [
        [None if item < 0 else item for item in row[mask].tolist()]
        for row, mask in zip(items, batch.history_mask, strict=True)
    ]


def _in_words(before: list[int | None], after: list[int | None], texts: list[str]) -> ShownHistory:
    kind = "crop" if len(after) < len(before) else "mask" if None in after else "reorder"
    said = [tuple(None if item is None else texts[item] for item in row) for row in (before, after)]
    return ShownHistory(kind, tuple(text for text in said[0] if text is not None), said[1])
