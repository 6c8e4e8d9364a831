"""From a GGUF file, as llama.cpp reads it, to a folder that transformers reads: safetensors in fp32, tokenizer, config."""

from importlib.util import find_spec
from pathlib import Path

from lmrec.artifacts.files import replaced_folder
from lmrec.errors import MissingExtraError


def check_gguf(name: str) -> None:
    """Raises MissingExtraError without the package that reads the format."""
    if find_spec("gguf") is None:
        raise MissingExtraError(f"Reading {name}", "gguf", "gguf")


def convert_gguf(file: Path, target: Path) -> Path:
    """Unpack the quantised weights of a causal language model once; `target` appears when it is whole.

    What 4 bits have lost stays lost: the numbers are those that llama.cpp computes with. Raises as `check_gguf` does.
    """
    check_gguf(file.name)
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    unpacked = AutoModelForCausalLM.from_pretrained(str(file.parent), gguf_file=file.name, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name)
    values = {name: value for name, value in unpacked.config.to_dict().items() if name != "quantization_config"}
    # A model that came from GGUF refuses to be saved, so its weights go into a plain one of the same config.
    model = type(unpacked)(type(unpacked.config).from_dict(values))
    model.load_state_dict(unpacked.state_dict())
    with replaced_folder(target) as fresh:
        model.save_pretrained(fresh)
        tokenizer.save_pretrained(fresh)
    return target
