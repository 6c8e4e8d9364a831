"""A figure: what was measured, ours, the reference's, and how many times better ours is; and the table of many."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal, Self

UNITS = ("s", "ms", "MB", "GB", "texts/s", "rows/s", "requests/s", "GFLOP/s", "share", "count")
Unit = Literal["s", "ms", "MB", "GB", "texts/s", "rows/s", "requests/s", "GFLOP/s", "share", "count"]
_LOWER_IS_BETTER = frozenset({"s", "ms", "MB", "GB"})


@dataclass(frozen=True)
class Figure:
    """`ours` and `reference` in `unit`. `reference` is what `reference_name` says: another implementation that ran in the
    same process just before or after, or a limit that issue 6 sets ("limit"). `note`: sizes and conditions, briefly.

    >>> Figure("search", 2.0, 8.4, "ms", "plain product").ratio
    4.2
    """

    what: str
    ours: float
    reference: float
    unit: Unit
    reference_name: str
    note: str = ""

    @property
    def ratio(self) -> float:
        """How many times better ours is: above 1 is a win, whichever way the unit counts."""
        worse, better = (self.reference, self.ours) if self.unit in _LOWER_IS_BETTER else (self.ours, self.reference)
        return worse / better if better else float("inf")

    @classmethod
    def from_dict(cls, values: dict[str, object]) -> Self:
        return cls(**{name: values[name] for name in cls.__dataclass_fields__})  # type: ignore[arg-type]

    def as_dict(self) -> dict[str, object]:
        return {**asdict(self), "ratio": self.ratio}


def show_table(figures: Iterable[Figure]) -> str:
    """One line a figure: what, ours, the reference, `ratio 4.20x`, the note."""
    rows = [
        (
            figure.what,
            f"ours {show_number(figure.ours)} {figure.unit}",
            f"{figure.reference_name} {show_number(figure.reference)} {figure.unit}",
            f"ratio {figure.ratio:.2f}x",
            figure.note,
        )
        for figure in figures
    ]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(5)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of the values lie: no interpolation, so a p99 is something that happened.

    >>> percentile([3.0, 1.0, 2.0], 0.5)
    2.0
    """
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def show_number(value: float) -> str:
    """Three digits, or whole thousands.

    >>> show_number(3.14159), show_number(12345.6)
    ('3.14', '12,346')
    """
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
