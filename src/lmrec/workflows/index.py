"""The index of a run's items, made when the run is saved and measured on questions as users will ask them."""

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lmrec.artifacts.files import write_text
from lmrec.artifacts.generation import generation_path, read_serving
from lmrec.artifacts.lock import RERANKING, UPDATING, locked
from lmrec.artifacts.run import RunFolder, open_run
from lmrec.data.history import HistoryIndex
from lmrec.data.interactions import Interactions
from lmrec.errors import InputError
from lmrec.fields import FloatArray
from lmrec.recipe import load_fitted, recipe_toml
from lmrec.retrieval.ann import IndexConfig, build_index
from lmrec.retrieval.index import ItemIndex
from lmrec.retrieval.recommender import Recommender
from lmrec.retrieval.scorer import Scorer

_QUERIES = 200
_SEED = 0


@dataclass(frozen=True)
class Indexed:
    """index: None where every item is scored."""

    run: Path
    index: ItemIndex | None
    n_items: int
    seconds: float

    @property
    def n_bytes(self) -> int:
        """On disk."""
        folder = RunFolder(self.run).index
        return sum(file.stat().st_size for file in folder.iterdir()) if folder.exists() else 0


def index_run(path: Path | str, overrides: Sequence[str] = ()) -> list[Indexed]:
    """Make the index of a run anew, and that of the generation that is served where that is another; one answer for each.

    overrides: `index.*` settings, kept in the run's recipe. Raises InputError, RecipeError, and RunFolderError for a folder
    that holds no fitted run.
    """
    run = open_run(path)
    with locked(run.path / UPDATING, "index or update"), locked(run.path / RERANKING, "index or fit-reranker"):
        folders = dict.fromkeys((run, open_run(generation_path(path, read_serving(path)))))
        return [_index_folder(folder, overrides) for folder in folders]


def _index_folder(run: RunFolder, overrides: Sequence[str]) -> Indexed:
    began = time.monotonic()
    recipe = load_fitted(run.recipe_file, overrides, ["index.*"])
    recommender = Recommender.load(run.path)
    if recommender.ensemble is not None:
        raise InputError(
            f"'{run.path}' is an ensemble, of which every item is scored for every answer: it has no index"
        )
    scorer = recommender.scorer
    assert isinstance(scorer, Scorer)
    save_index(run, scorer, recommender.interactions, recipe.index, recommender.checkpoint.fingerprint)
    if overrides:
        write_text(run.recipe_file, recipe_toml(recipe))
    index = recommender.index  # read only now: it is the one that was saved
    return Indexed(run.path, index, recommender.catalog.n_items, round(time.monotonic() - began, 1))


def save_index(run: RunFolder, scorer: Scorer, interactions: Interactions, config: IndexConfig, origin: str) -> None:
    """Beside the vectors, in the place of one that is there; none where the catalog is so small that the plain product
    does, or where ranks are fused.

    scorer: what will be served. origin: the fingerprint of its checkpoint.
    """
    index = None
    if not scorer.fusion.weights.ranks:
        index = build_index(scorer.bank.matrix.detach().cpu().numpy(), config, _asked(scorer, interactions))
    if index is not None:
        index.save(run.index, origin)
    else:
        shutil.rmtree(run.index, ignore_errors=True)


def _asked(scorer: Scorer, interactions: Interactions) -> FloatArray:
    """(M, Q) the questions of some users; none where histories are read as text, which would take a language model."""
    if scorer.towers.user_model is None:
        return np.zeros((0, scorer.bank.matrix.shape[1]), np.float32)
    users = np.unique(interactions.user_idx)
    drawn = np.random.default_rng(_SEED).choice(users, min(_QUERIES, len(users)), replace=False)
    return scorer.query(HistoryIndex.from_interactions(interactions).all(drawn)).numpy()
