"""lmrec: recommendation with pretrained language models, from two tables to a live recommender.

    import lmrec

    recommender = lmrec.fit(items, interactions, out="runs/mine")   # paths, polars or pandas
    recommender.recommend(users=["42"], k=10)
    recommender.recommend(histories=[["50", "181"]], k=10)          # somebody never seen
    lmrec.load("runs/mine").similar(text="a heist film with a twist")

Names are resolved on first use: `import lmrec` imports no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lmrec.api import fit as fit
    from lmrec.api import load as load
    from lmrec.recipe import Recipe as Recipe
    from lmrec.recipe import load_recipe as load_recipe
    from lmrec.retrieval.recommender import Recommender as Recommender
    from lmrec.retrieval.recommender import to_frame as to_frame

__version__ = "0.1.0"
__all__ = ["Recipe", "Recommender", "fit", "load", "load_recipe", "to_frame"]

_HOMES = {
    "fit": "lmrec.api",
    "load": "lmrec.api",
    "Recipe": "lmrec.recipe",
    "load_recipe": "lmrec.recipe",
    "Recommender": "lmrec.retrieval.recommender",
    "to_frame": "lmrec.retrieval.recommender",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'lmrec' has no attribute '{name}'; it has {', '.join(__all__)}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
