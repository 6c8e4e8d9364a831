"""A second task on the user's side: of which category is what comes next? Told from the user vector alone.

Many events say little about single items and much about kinds of items, so a head that must name the category can steady the
user model where items are rare (multi-task learning: Caruana 1997, https://doi.org/10.1023/A:1007379606734). The head is for
training; what is served does not need it.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn

from lmrec.data.catalog import Catalog
from lmrec.errors import RecipeError, nearest
from lmrec.fields import IntArray
from lmrec.training.losses import AuxiliaryConfig, Objective
from lmrec.training.objectives import Asked

_NEARLY_ALL = 0.9  # of the items that have a value


@dataclass(frozen=True, eq=False)
class Categories:
    """names: of the classes. of_item: (N,) the class of each item, -1 for none."""

    names: tuple[str, ...]
    of_item: IntArray


def read_categories(catalog: Catalog, config: AuxiliaryConfig) -> Categories | None:
    """None where no column is named. Of several values an item has the first counts, but for one that nearly all items have, as
    the top of a tree of categories does. Raises RecipeError where the column is missing or tells fewer than two categories.

    >>> frame = pl.DataFrame({"item_id": ["1", "2", "3"], "genres": ["Crime, Drama", "Crime", "Comedy"]})
    >>> found = read_categories(Catalog(frame, ("genres",), ()), AuxiliaryConfig(column="genres", min_items=1))
    >>> found.names, found.of_item.tolist()
    (('Comedy', 'Crime'), [1, 1, 0])
    """
    column = config.column
    if column is None:
        return None
    if column not in catalog.frame.columns:
        raise RecipeError(
            f"objective.auxiliary.column is '{column}', which the catalog lacks. {nearest(column, catalog.frame.columns)}"
        )
    values = _telling(catalog.frame[column].cast(pl.String))
    counts = values.drop_nulls().value_counts().filter(pl.col("count") >= config.min_items)
    names = tuple(sorted(name for name in counts["value"].to_list() if name))
    if len(names) < 2:
        raise RecipeError(
            f"objective.auxiliary.column '{column}' has {len(names)} value of at least {config.min_items} items; categories "
            "are at least two. Name another column, or lower objective.auxiliary.min_items"
        )
    place = {name: at for at, name in enumerate(names)}
    return Categories(names, np.array([place.get(value, -1) for value in values.to_list()], np.int64))


def _telling(column: pl.Series) -> pl.Series:
    """(N,) the first of each item's values that tells it from others; none where it has none.

    >>> _telling(pl.Series(["Tools, Saws", "Tools | Glue", "Tools,", None])).to_list()
    ['Saws', 'Glue', 'Tools', None]
    """
    column = column.str.strip_chars().replace("", None)
    cells = pl.DataFrame({"value": column.str.split("|").list.eval(pl.element().str.split(",").explode())})
    cells = cells.with_row_index("item").explode("value")
    cells = cells.with_columns(pl.col("value").str.strip_chars().replace("", None))
    held = pl.col("item").n_unique().over("value") / max(1, len(column) - column.null_count())
    says = pl.when(pl.col("value").is_null()).then(2).otherwise((held > _NEARLY_ALL).cast(pl.Int8))
    ordered = cells.with_columns(says.alias("says_little")).sort("item", "says_little", maintain_order=True)
    return ordered.group_by("item", maintain_order=True).first()["value"]


class WithCategory(nn.Module):
    """Another objective, plus `weight` times the cross-entropy of the next item's category in nats a target that has one."""

    def __init__(self, rest: Objective, categories: Categories, width: int, weight: float) -> None:
        super().__init__()
        self.rest, self.weight = rest, weight
        self.class_of_item: Tensor
        self.register_buffer("class_of_item", torch.from_numpy(categories.of_item))
        self.head = nn.Linear(width, len(categories.names))

    def forward(self, asked: Asked, rng: np.random.Generator) -> Tensor:
        """() of user_vec (T, D), as the score's head prepared it."""
        loss = self.rest(asked, rng)
        labels = self.class_of_item[asked.target]
        weight = asked.weight * (labels >= 0)
        each = nn.functional.cross_entropy(self.logits(asked.user_vec), labels.clamp(min=0), reduction="none")
        return loss + self.weight * (each * weight).sum() / weight.sum().clamp(min=1e-9)

    def divergence(self, one: Asked, other: Asked, rng: np.random.Generator) -> Tensor:
        """Of the items' softmaxes alone, as of any objective."""
        return self.rest.divergence(one, other, rng)

    def logits(self, user_vec: Tensor) -> Tensor:
        """(T, D) -> (T, C). Unit vectors are brought to unit numbers."""
        told: Tensor = self.head(nn.functional.normalize(user_vec.float(), dim=-1) * user_vec.shape[-1] ** 0.5)
        return told
