"""Where data comes from: one file a format, all giving the same `Dataset`."""

from lmrec.data.sources.movielens import read_movielens_100k
from lmrec.data.sources.synthetic import planted_world
from lmrec.data.sources.tables import TablesConfig, read_dataset

__all__ = ["TablesConfig", "planted_world", "read_dataset", "read_movielens_100k"]
