"""The picture of a quantity over learning rates: a curve's spread is drawn where it is given."""

from pathlib import Path

import matplotlib.image
import numpy as np

from lmrec.evaluation.rate_chart import draw_rates


def test_a_spread_is_a_band_from_the_lowest_to_the_highest(tmp_path: Path) -> None:
    curve = [(1e-6, 0.5), (1e-3, 0.5)]
    pictures = []
    for name, spreads in (("bare", {}), ("band", {"a": [(1e-6, 0.2, 0.8), (1e-3, 0.4, 0.6)]})):
        # The other curve fixes the axis, so that the band alone tells the pictures apart.
        draw_rates({"a": curve, "axis": [(1e-6, 0.0), (1e-3, 1.0)]}, tmp_path / name, "value", {}, spreads)
        pictures.append(matplotlib.image.imread(tmp_path / name))
    bare, band = pictures
    tinted = (bare != band).any(2)
    columns = np.flatnonzero(tinted.any(0))
    assert len(columns) > 0.7 * bare.shape[1], "over all rates"
    left, right = (int(tinted[:, column].sum()) for column in (columns[3], columns[-4]))
    assert left > 2.5 * right > 0, "0.6 high on the left, 0.2 on the right"
