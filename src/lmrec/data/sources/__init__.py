"""Where data comes from: one file a format, all giving the same `Dataset`."""

from lmrec.data.sources.amazon import read_amazon
from lmrec.data.sources.formats import SOURCES, read_source
from lmrec.data.sources.lastfm import read_lastfm
from lmrec.data.sources.mind import read_mind
from lmrec.data.sources.movielens import read_movielens, read_movielens_100k
from lmrec.data.sources.retail import read_retail
from lmrec.data.sources.synthetic import planted_world
from lmrec.data.sources.tables import TablesConfig, read_dataset

__all__ = [
    "SOURCES",
    "TablesConfig",
    "planted_world",
    "read_amazon",
    "read_dataset",
    "read_lastfm",
    "read_mind",
    "read_movielens",
    "read_movielens_100k",
    "read_retail",
    "read_source",
]
