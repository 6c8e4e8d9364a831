"""Which data under which question. A cell is one data set under one protocol; P1 has two forms, never to be compared."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lmrec.artifacts.pretrained import cache_folder
from lmrec.data.sources.movielens import read_movielens_100k
from lmrec.data.sources.registry import fetch_dataset
from lmrec.errors import InputError, nearest
from lmrec.recipe import Recipe, load_recipe
from lmrec.workflows.prepare import Prepared, prepare_dataset, prepare_source

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Data:
    """A data set: format and folder (below LMREC_DATA; none: fetched), recipe, and how long rivals' sessions are."""

    name: str
    source: str
    recipe: str
    max_session: int
    folder: str | None = None

    @property
    def path(self) -> Path | None:
        """Where it lies; None for a data set that is fetched."""
        if self.folder is None:
            return None
        return Path(os.environ.get("LMREC_DATA", ROOT.parent / "shared" / "data")) / self.folder

    def prepare(self, recipe: Recipe) -> Prepared:
        """Read, fetched first where it is none of LMREC_DATA, and split as the recipe says."""
        if self.path is None:
            return prepare_dataset(read_movielens_100k(fetch_dataset(self.source, cache_folder() / "data")), recipe)
        return prepare_source(self.source, self.path, recipe)


@dataclass(frozen=True)
class Protocol:
    """A question. `forms`: name -> whether items of the history are excluded. `overrides`: on top of the recipe."""

    name: str
    about: str
    overrides: tuple[str, ...]
    forms: Mapping[str, bool]
    data: tuple[str, ...]

    def form_name(self, form: str) -> str:
        return f"{self.name}{form}" if len(self.forms) > 1 else self.name


@dataclass(frozen=True)
class Cell:
    data: Data
    protocol: Protocol

    @property
    def name(self) -> str:
        return f"{self.data.name}-{self.protocol.name}"

    def recipe(self, form: str, overrides: tuple[str, ...] = ()) -> Recipe:
        exclude = f"evaluation.exclude_seen={str(self.protocol.forms[form]).lower()}"
        return load_recipe(
            ROOT / "recipes" / f"{self.data.recipe}.toml", (*self.protocol.overrides, exclude, *overrides)
        )

    def prepare(self, recipe: Recipe) -> Prepared:
        return self.data.prepare(recipe)

    @property
    def is_there(self) -> bool:
        return self.data.path is None or self.data.path.exists()


EXCLUDED: Mapping[str, bool] = {"x": True}
BOTH: Mapping[str, bool] = {"x": True, "i": False}

DATA = {
    data.name: data
    for data in (
        Data("amazon-scientific", "tables", "amazon-scientific", 20, "amazon-scientific"),
        Data("amazon-beauty", "tables", "amazon-beauty", 20, "amazon-beauty"),
        Data("movielens-100k", "movielens-100k", "movielens-100k", 100),
        Data("online-retail", "retail", "online-retail", 100, "online-retail"),
        Data("mind", "mind", "mind", 50, "mind"),
        Data("lastfm", "lastfm", "lastfm", 50, "lastfm"),
    )
}

PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            "P1",
            "leave-last-out, whole catalog; P1x leaves items of the history out, P1i leaves them in",
            ("split.kind=last",),
            BOTH,
            ("amazon-scientific", "amazon-beauty", "movielens-100k"),
        ),
        Protocol(
            "P2",
            "one global cut in time, whole catalog, items of the history left out",
            ("split.kind=time",),  # shares are the recipe's: a tenth each, but of MIND, whose older times are made up
            EXCLUDED,
            ("movielens-100k", "online-retail", "mind"),
        ),
        Protocol(
            "P4",
            "cold: all events of 10 % of the items taken out of training (and of another 10 % for validation); the held-out "
            "items are asked for among the whole catalog",
            ("split.kind=cold_items", "split.target=next", "split.validation=0.1", "split.test=0.1"),
            EXCLUDED,
            ("amazon-scientific", "amazon-beauty", "movielens-100k"),
        ),
        Protocol(
            "P5",
            "each user's newest tagged artist, whole catalog, items of the history left out",
            ("split.kind=last",),
            EXCLUDED,
            ("lastfm",),
        ),
    )
}
# P3 (impressions: AUC, MRR and NDCG over what was shown) is judged by `lmrec.evaluation`, not by ranking a catalog: it has
# no split that a rival could read, and so no cell here.


def choose_cells(data: str | None = None, protocol: str | None = None) -> list[Cell]:
    """All cells, or those of one data set or protocol (P1, or P1x for its form). Raises InputError for unknown names."""
    wanted = protocol.rstrip("xi") if protocol else None
    for name, known in ((data, DATA), (wanted, PROTOCOLS)):
        if name is not None and name not in known:
            raise InputError(f"there is no '{name}' here. {nearest(name, known)} All: {', '.join(known)}")
    return [
        Cell(DATA[name], chosen)
        for chosen in PROTOCOLS.values()
        for name in chosen.data
        if data in (None, name) and wanted in (None, chosen.name)
    ]
