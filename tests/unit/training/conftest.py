"""A learner small enough to be trained many times over: the small world, the tiny BERT, two towers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
import torch

from lmrec.data.dataset import Dataset
from lmrec.data.history import HistoryIndex
from lmrec.fields import IntArray, Ragged
from lmrec.models.encoder import EncoderConfig, choose_trainable, encode_tokens, load_encoder
from lmrec.models.heads import HeadConfig
from lmrec.models.two_tower import ItemTowerConfig, TwoTower
from lmrec.models.user_model import UserModelConfig
from lmrec.text.tokens import load_tokenizer, tokenize_texts
from lmrec.training.batches import TrainBatch, epoch_batches
from lmrec.training.learner import Learner
from lmrec.training.losses import Objective

LearnerMaker: TypeAlias = Callable[..., Learner]
MAX_HISTORY = 5


@pytest.fixture(scope="session")
def world_index(world: Dataset) -> HistoryIndex:
    return HistoryIndex.from_interactions(world.interactions)


@pytest.fixture(scope="session")
def world_tokens(world: Dataset, tiny_bert: Path) -> Ragged:
    return tokenize_texts(load_tokenizer(tiny_bert), world.catalog.frame["title"].to_list(), 16).ids


@pytest.fixture
def make_learner(tiny_bert: Path, world_tokens: Ragged) -> LearnerMaker:
    """The same weights at every call. Dropout is on, so that random states matter."""

    def make(
        kind: str = "transformer",
        *,
        dropout: float = 0.2,
        max_encoded_items: int = 8,
        train: str = "last_layers",
        mask_seen: bool = True,
        objective: Objective | None = None,
    ) -> Learner:
        encoder_config = EncoderConfig.model_validate(
            {"name": "tiny", "train": train, "n_layers": 1, "dropout": dropout}
        )
        encoder = load_encoder(tiny_bert, encoder_config)
        choose_trainable(encoder, encoder_config)
        text_vec = encode_tokens(encoder, world_tokens, 4096, torch.device("cpu"))
        torch.manual_seed(0)
        towers = TwoTower(
            text_vec,
            np.ones(len(text_vec), np.bool_),
            ItemTowerConfig(width=8, whiten=16, id_dropout=dropout),
            UserModelConfig.model_validate({"kind": kind, "heads": 2, "max_history": MAX_HISTORY, "dropout": dropout}),
            HeadConfig(),
        )

        def history_tokens(histories: list[IntArray], words: object = None) -> Ragged:
            return Ragged.from_rows([np.concatenate([[2], *(world_tokens[i][1:] for i in h)])[:40] for h in histories])

        return Learner(
            towers,
            encoder,
            world_tokens,
            torch.from_numpy(text_vec),
            encoder_config,
            max_encoded_items,
            history_tokens,
            mask_seen,
            objective=objective,
        )

    return make


@pytest.fixture
def world_batches(world_index: HistoryIndex) -> Callable[[int, int], list[TrainBatch]]:
    """Later epochs are shorter: windows are cut anew in each, and a batch in which nothing is a target falls away."""

    def batches(stage: int, epoch: int) -> list[TrainBatch]:
        whole = epoch_batches(world_index, MAX_HISTORY, 60 if stage == 0 else 150, (0, stage, epoch))
        return whole[: len(whole) - 2 * min(epoch, 1)]

    return batches


@pytest.fixture
def weights_of() -> Callable[[Any], dict[str, torch.Tensor]]:
    return lambda learner: {name: value.clone() for name, value in learner.state_dict().items()}
