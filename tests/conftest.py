"""What all tests share: a cache of their own, tiny language models made on the spot, and a small planted world."""

import io
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

# Tiny models are slower on several threads than on one; set before torch and BLAS are first imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["HF_HUB_OFFLINE"] = "1"  # read once, when the hub's package is imported

import polars as pl
import pytest
from hypothesis import settings

from lmrec.data.dataset import Dataset
from lmrec.data.sources.synthetic import planted_world

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

# A busy machine is no reason to fail.
settings.register_profile("lmrec", deadline=None)
settings.load_profile("lmrec")

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Nothing in these tests reads or writes the real cache."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("LMREC_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def world() -> Dataset:
    """A planted world of 32 items and 60 users; small enough to train on in a blink."""
    return planted_world(n_users=60, n_items=32, n_events_per_user=14, n_topics=4, seed=3)


@pytest.fixture(scope="session")
def world_folder(world: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small world as a user would have it: items.csv and events.csv."""
    folder = tmp_path_factory.mktemp("world")
    write_tables(world, folder)
    return folder


@pytest.fixture(scope="session")
def fitted(world_folder: Path, quick_choices: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run fitted in a second; copied by whoever changes it."""
    from lmrec.workflows.train import fit_run

    out = tmp_path_factory.mktemp("fitted") / "run"
    fit_run(world_folder / "items.csv", world_folder / "events.csv", out=out, overrides=quick_choices, show=False)
    return out


@pytest.fixture
def run(fitted: Path, tmp_path: Path) -> Path:
    """A copy of that run, to be changed."""
    return Path(shutil.copytree(fitted, tmp_path / "run"))


@pytest.fixture(scope="module")
def service_logs() -> Iterator[io.StringIO]:
    """The service's lines go where a test can read them; what was set up before comes back."""
    from lmrec.service.logs import start_logging

    names = ("lmrec", "uvicorn")
    before = {name: (logging.getLogger(name).handlers, logging.getLogger(name).propagate) for name in names}
    stream = io.StringIO()
    start_logging(stream)
    yield stream
    for name, (handlers, propagate) in before.items():
        logging.getLogger(name).handlers = handlers
        logging.getLogger(name).propagate = propagate


def write_tables(world: Dataset, folder: Path) -> None:
    events = world.interactions
    world.catalog.frame.write_csv(folder / "items.csv")
    pl.DataFrame(
        {
            "user_id": [events.user_ids[user] for user in events.user_idx],
            "item_id": [world.catalog.ids[item] for item in events.item_idx],
            "timestamp": events.time_ts.astype(int),
        }
    ).write_csv(folder / "events.csv")


@pytest.fixture(scope="session")
def tiny_tokenizer() -> "PreTrainedTokenizerFast":
    """Word pieces: every word of every planted world of up to 16 topics, and all letters and digits for the rest."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    biggest = planted_world(n_users=1, n_items=640, n_events_per_user=1, n_topics=16, n_flavours=4)
    texts = " ".join(biggest.catalog.frame["title"].to_list() + biggest.catalog.frame["description"].to_list())
    words = sorted(set(texts.lower().replace(".", " ").replace(",", " ").split()))
    letters = [*"abcdefghijklmnopqrstuvwxyz0123456789.,:|-"]
    pieces = list(dict.fromkeys([*SPECIALS, *letters, *(f"##{letter}" for letter in letters), *words]))
    tokenizer = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
    )


@pytest.fixture(scope="session")
def tiny_bert(tiny_tokenizer: "PreTrainedTokenizerFast", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a BERT of 3 layers, 32 wide, that has never been trained."""
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tiny_tokenizer),
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=96,
        initializer_range=0.05,
    )
    model = BertModel(config)
    with torch.no_grad():  # words weigh more than places and mixing, so that vectors tell words apart without training
        model.embeddings.word_embeddings.weight.mul_(4.0)
    folder = tmp_path_factory.mktemp("tiny") / "bert"
    model.save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_gpt(tiny_tokenizer: "PreTrainedTokenizerFast", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a GPT-2 of 2 layers whose tokenizer has an end token and neither padding nor a first token."""
    import torch
    from tokenizers import Tokenizer, processors
    from transformers import GPT2Config, GPT2Model, PreTrainedTokenizerFast

    backend = Tokenizer.from_str(tiny_tokenizer.backend_tokenizer.to_str())
    backend.post_processor = processors.TemplateProcessing(single="$A", special_tokens=[])
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=backend, unk_token="[UNK]", eos_token="[SEP]"
    )
    torch.manual_seed(0)
    end = tokenizer.eos_token_id
    config = GPT2Config(
        vocab_size=len(tiny_tokenizer),
        n_embd=32,
        n_layer=2,
        n_head=2,
        n_positions=96,
        bos_token_id=end,
        eos_token_id=end,
    )
    folder = tmp_path_factory.mktemp("tiny") / "gpt"
    GPT2Model(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_llama(tiny_gpt: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a Llama of 2 layers that writes, with the tokenizer of the other GPT type."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(tiny_gpt)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=0.2,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    folder = tmp_path_factory.mktemp("tiny") / "llama"
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def quick_choices(tiny_bert: Path) -> list[str]:
    """--set values for one fast epoch a stage; the attributes that tell the answer stay out of the words."""
    return [
        f"encoder.name={tiny_bert}",
        'data.text_columns=["title", "description"]',
        "template.item={title}. {description}",  # its labels would be letters to the tiny tokenizer
        "encoder.max_tokens=24",
        "encoder.n_layers=1",
        "item.width=16",
        "user_model.max_history=10",
        "training.frozen_epochs=1",
        "training.tuned_epochs=1",
        "training.batch_events=200",
        "training.tuned_batch_events=400",
        "training.max_encoded_items=8",
        "training.precision=fp32",
        "evaluation.n_bootstrap=20",
        'baselines.names=["popularity"]',
    ]
