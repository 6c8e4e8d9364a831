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
    assert "tuned" in [row["stage"] for row in fitted.run.read_metrics()]
    recommender = Recommender.load(tmp_path / "run")
    known, newcomer = recommender.recommend(users=["user0", "stranger"], k=5)
    assert len(known.items) == len(newcomer.items) == 5
    assert all(np.isfinite(item.score) for item in (*known.items, *newcomer.items))


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
