"""GPT-type language models as encoders: of items, and of a history written as text."""

from pathlib import Path

import numpy as np
import pytest

from lmrec.retrieval.recommender import Recommender
from lmrec.workflows.train import fit_run


@pytest.mark.parametrize(("pooling", "kind"), [("last", "transformer"), ("mean", "text"), ("last", "text")])
def test_it_fits_tunes_and_answers(
    pooling: str, kind: str, tiny_llama: Path, world_folder: Path, tmp_path: Path, quick_choices: list[str]
) -> None:
    choices = [
        *quick_choices,
        f"encoder.name={tiny_llama}",
        f"encoder.pooling={pooling}",
        f"user_model.kind={kind}",
        "training.validation_cases=20",
    ]
    fitted = fit_run(
        world_folder / "items.csv", world_folder / "events.csv", out=tmp_path / "run", overrides=choices, show=False
    )
    assert "tuned" in [row["stage"] for row in fitted.run.curves.read()]
    recommender = Recommender.load(tmp_path / "run")
    known, newcomer = recommender.recommend(users=["user0", "stranger"], k=5)
    assert len(known.items) == len(newcomer.items) == 5
    assert all(np.isfinite(item.score) for item in (*known.items, *newcomer.items))


def test_dropout_inside_a_llama_is_felt_while_it_is_tuned(
    tiny_llama: Path, world_folder: Path, tmp_path: Path, quick_choices: list[str]
) -> None:
    """Also by R-Drop, whose two passes over a history read as text differ by it alone."""
    losses = {}
    text = ["user_model.kind=text", "item.source=text", "training.frozen_epochs=0", "encoder.train=all"]
    for name, more in {
        "none": ["encoder.dropout=0"],
        "half": ["encoder.dropout=0.5"],
        "half, r-drop": ["encoder.dropout=0.5", "regularisers.r_drop=50"],
    }.items():
        choices = [*quick_choices, f"encoder.name={tiny_llama}", *text, *more, "training.validation_cases=20"]
        tables = world_folder / "items.csv", world_folder / "events.csv"
        (row,) = fit_run(*tables, out=tmp_path / name, overrides=choices, show=False).run.curves.read()
        losses[name] = row["loss"]
    assert losses["half"] != losses["none"]
    assert losses["half, r-drop"] > losses["half"] + 1e-3


@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_padding_at_the_right_changes_no_vector(tiny_llama: Path, pooling: str) -> None:
    import torch

    from lmrec.models.encoder import EncoderConfig, load_encoder

    encoder = load_encoder(tiny_llama, EncoderConfig.model_validate({"pooling": pooling})).eval()
    ids = torch.tensor([[40, 50, 60, 0, 0], [41, 51, 61, 71, 72]])
    mask = torch.tensor([[True, True, True, False, False], [True] * 5])
    with torch.no_grad():
        together, alone = encoder(ids, mask), encoder(ids[:1, :3], mask[:1, :3])
    torch.testing.assert_close(together[:1], alone, atol=1e-5, rtol=0)
