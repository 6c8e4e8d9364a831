"""Runtimes: ways to run one and the same text encoder where nothing is learnt, and the gate that a fast one must pass.

torch-fp32 is the truth. The others compute in bf16 or in another engine; before one is used, its vectors of a sample of
the very texts are held against torch-fp32's, and one that is off is refused, said, and the next is taken. Vectors are
always pooled, scaled to length one and kept in fp32: in bf16 near-duplicate items would tie.
"""

import copy
import importlib
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, get_args

import numpy as np
import torch
from torch import Tensor, nn

from lmrec.cores import free_cores
from lmrec.errors import RecipeError
from lmrec.fields import FloatArray, IntArray, Ragged
from lmrec.models.encoder import RuntimeChoice, RuntimeName, TextEncoder, pad_tokens, pool, token_batches, unique_rows
from lmrec.models.precision import cpu_computes_bf16
from lmrec.models.quick import quick_copy

_LOG = logging.getLogger(__name__)
RUNTIMES: tuple[RuntimeName, ...] = get_args(RuntimeName)
FAITHFUL = 2e-4  # 1 - cosine to torch-fp32 that a runtime may be off by, for every text of the sample
EXACT = 1e-5  # the same of quick layers in fp32
_SAMPLE, _FEW = 24, 4
_CORE_TOKENS = (
    2_048  # of a batch: what lies between two layers stays in a core's cache, 3 to 8 % quicker than twice as many
)


class EncoderRuntime(Protocol):
    """(N, L) token ids and mask -> (N, D) fp32 vectors of length one, without gradient."""

    name: RuntimeName
    width: int

    def encode(self, token_ids: Tensor, token_mask: Tensor) -> Tensor: ...


class TorchRuntime:
    """PyTorch, in the weights' own precision or, with `bf16`, in a copy of them in bf16. On a CPU in quick layers, which are
    the same to rounding; `quick` False: in the model's own."""

    def __init__(self, encoder: TextEncoder, bf16: bool = False, quick: bool = True) -> None:
        self.name: RuntimeName = "torch-bf16" if bf16 else "torch-fp32"
        self.width = encoder.width
        backbone = copy.deepcopy(encoder.backbone).bfloat16() if bf16 else encoder.backbone
        self.is_quick = quick and next(backbone.parameters()).device.type == "cpu" and not encoder.adapter_names
        if self.is_quick:
            backbone = quick_copy(backbone)
        self._encoder = TextEncoder(backbone, encoder.pooling).eval()

    @torch.inference_mode()
    def encode(self, token_ids: Tensor, token_mask: Tensor) -> Tensor:
        device = next(self._encoder.parameters()).device
        vectors: Tensor = self._encoder(token_ids.to(device), token_mask.to(device))
        return vectors.cpu()


class OnnxRuntime:
    """ONNX Runtime in fp32, on the model as torch.onnx.export writes it to `file` (made where it is missing)."""

    name: RuntimeName = "onnx"

    def __init__(self, encoder: TextEncoder, file: Path) -> None:
        onnxruntime = need("onnxruntime", "onnx")
        self.width, self._pooling = encoder.width, encoder.pooling
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # batches run side by side: see encode_batches
        self._session = onnxruntime.InferenceSession(
            str(export_onnx(encoder, file)), options, providers=["CPUExecutionProvider"]
        )

    def encode(self, token_ids: Tensor, token_mask: Tensor) -> Tensor:
        inputs = {"token_ids": token_ids.numpy(), "token_mask": token_mask.long().numpy()}
        (hidden,) = self._session.run(None, inputs)
        return _finish(torch.from_numpy(hidden), token_mask, self._pooling)


class OpenVinoRuntime:
    """OpenVINO in bf16, on the same exported file."""

    name: RuntimeName = "openvino-bf16"

    def __init__(self, encoder: TextEncoder, file: Path) -> None:
        openvino = need("openvino", "openvino")
        self.width, self._pooling = encoder.width, encoder.pooling
        core = openvino.Core()
        self._model = core.compile_model(
            core.read_model(str(export_onnx(encoder, file))),
            "CPU",
            {"INFERENCE_PRECISION_HINT": "bf16", "INFERENCE_NUM_THREADS": torch.get_num_threads()},
        )

    def encode(self, token_ids: Tensor, token_mask: Tensor) -> Tensor:
        request = self._model.create_infer_request()
        hidden = request.infer([token_ids.numpy(), token_mask.long().numpy()])[0]
        return _finish(torch.from_numpy(np.array(hidden, np.float32)), token_mask, self._pooling)


def _finish(hidden: Tensor, token_mask: Tensor, pooling: Any) -> Tensor:
    return nn.functional.normalize(pool(hidden.float(), token_mask, pooling), dim=-1)


def build_runtime(name: RuntimeName, encoder: TextEncoder, folder: Path) -> EncoderRuntime:
    """folder: where an exported model is kept. Raises RecipeError where it cannot be had here: an extra is missing, or the
    model cannot be exported."""
    match name:
        case "torch-fp32":
            return TorchRuntime(encoder)
        case "torch-bf16":
            return TorchRuntime(encoder, bf16=True)
        case "onnx":
            return OnnxRuntime(encoder, folder / "model.onnx")
        case "openvino-bf16":
            return OpenVinoRuntime(encoder, folder / "model.onnx")


def candidates(choice: RuntimeChoice) -> list[RuntimeName]:
    """What to try, first choice first; torch-fp32 stands last and is always right."""
    if choice != "auto":
        return [choice] if choice == "torch-fp32" else [choice, "torch-fp32"]
    return ["torch-bf16", "torch-fp32"] if cpu_computes_bf16() else ["torch-fp32"]


def answering_candidates(choice: RuntimeChoice) -> list[RuntimeName]:
    """The same where words are answered; auto is torch-fp32 there.

    Tuning leaves a catalog's vectors in fp32, and whitening makes more of what bf16 is off by: an item with the words of a
    known one would score visibly off. Whoever wants answers quicker names a runtime.
    """
    return candidates("torch-fp32" if choice == "auto" else choice)


def choose_runtime(names: Sequence[RuntimeName], encoder: TextEncoder, folder: Path, tokens: Ragged) -> EncoderRuntime:
    """The first of these that can be had here and is faithful on these texts; what is passed over is said.

    folder: where an exported model is kept. The last name must be torch-fp32.
    """
    for name in names:
        try:
            runtime = held_runtime(name, encoder, folder, tokens)
        except RecipeError as error:
            _LOG.warning("encoder.runtime '%s' cannot be had here: %s. Until then the next is taken", name, error)
            continue
        if runtime is not None:
            return runtime
    raise AssertionError("torch-fp32 is the last name and is never refused")


def held_runtime(name: RuntimeName, encoder: TextEncoder, folder: Path, tokens: Ragged) -> EncoderRuntime | None:
    """The runtime, held against fp32 on a sample of these texts; None where it is refused, which torch-fp32 never is.

    Raises RecipeError as `build_runtime`."""
    if name == "torch-fp32":
        return exact_runtime(encoder, tokens)
    runtime = build_runtime(name, encoder, folder)
    return runtime if is_faithful(runtime, encoder, tokens) else None


def exact_runtime(encoder: TextEncoder, tokens: Ragged) -> EncoderRuntime:
    """torch-fp32, in quick layers where they are exact on a few of these texts."""
    runtime = TorchRuntime(encoder)
    if not runtime.is_quick or measure_error(runtime, encoder, tokens, _FEW) < EXACT:
        return runtime
    _LOG.warning(
        "encoder.runtime 'torch-fp32': quick layers are off by more than %.0e, the model's own are used", EXACT
    )
    return TorchRuntime(encoder, quick=False)


def is_faithful(runtime: EncoderRuntime, encoder: TextEncoder, tokens: Ragged) -> bool:
    """Whether the runtime's vectors are those of torch-fp32 to `FAITHFUL`, on texts of all lengths there are."""
    error = measure_error(runtime, encoder, tokens)
    if not error < FAITHFUL:
        _LOG.warning(
            "encoder.runtime '%s' is refused: 1 - cosine to fp32 is %.1e, and less than %.0e is asked. The next is taken",
            runtime.name,
            error,
            FAITHFUL,
        )
        return False
    return True


def measure_error(runtime: EncoderRuntime, encoder: TextEncoder, tokens: Ragged, n: int = _SAMPLE) -> float:
    """The largest 1 - cosine to torch-fp32 on a sample: n texts evenly spread from the shortest to the longest."""
    by_length = np.argsort(tokens.lengths, kind="stable")
    sample = tokens.take(by_length[np.linspace(0, len(tokens) - 1, min(n, len(tokens))).astype(int)])
    ids, mask = pad_tokens(sample)
    truth = TorchRuntime(encoder, quick=False).encode(ids, mask)
    try:
        found = runtime.encode(ids, mask)
    except RuntimeError as error:
        _LOG.warning("encoder.runtime '%s' cannot run this model: %s", runtime.name, error)
        return float("inf")
    return float((1 - (truth * found).sum(1)).abs().max())


def export_onnx(encoder: TextEncoder, file: Path) -> Path:
    """The backbone as an ONNX file of any batch and length, by torch.onnx.export; kept, and made once.

    Raises RecipeError where the exporter cannot do it."""
    if file.exists():
        return file
    need("onnxscript", "onnx")
    file.parent.mkdir(parents=True, exist_ok=True)
    axes = {0: torch.export.Dim("texts", min=1, max=65536), 1: torch.export.Dim("tokens", min=1, max=8192)}
    ids, mask = (torch.ones(3, 7, dtype=torch.int64) for _ in range(2))  # one tensor twice would become one input
    was_training = encoder.training
    try:
        program = torch.onnx.export(
            _Hidden(encoder.backbone).eval(),
            (ids, mask),
            input_names=["token_ids", "token_mask"],
            output_names=["hidden"],
            dynamic_shapes=(axes, axes),
            dynamo=True,
            verbose=False,
        )
    except torch.onnx.OnnxExporterError as error:
        raise RecipeError(
            f"this encoder.runtime needs the language model as an ONNX file, and it cannot be exported "
            f"({str(error).splitlines()[0]}). Set encoder.runtime to 'torch-bf16' or 'torch-fp32'"
        ) from error
    finally:
        encoder.train(was_training)
    assert program is not None
    fresh = file.with_name(f".{file.name}.new")
    program.save(str(fresh), external_data=False)
    fresh.replace(file)
    return file


class _Hidden(nn.Module):
    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, token_ids: Tensor, token_mask: Tensor) -> Tensor:
        hidden: Tensor = self.backbone(input_ids=token_ids, attention_mask=token_mask).last_hidden_state
        return hidden


def need(package: str, extra: str) -> Any:
    """The package, or what to type."""
    try:
        return importlib.import_module(package)
    except ImportError:
        raise RecipeError(
            f"this encoder.runtime needs the package '{package}', which is missing. Type: pip install 'lmrec[{extra}]'"
        ) from None


def encode_unique(runtime: EncoderRuntime, tokens: Ragged, batch_tokens: int) -> FloatArray:
    """(N, D) fp32 vectors of N texts; equal texts are encoded once."""
    unique, place = unique_rows(tokens)
    vectors = np.zeros((len(tokens), runtime.width), np.float32)
    for rows, found in encode_batches(runtime, tokens, unique, batch_tokens):
        vectors[rows] = found
    return vectors[unique[place]]


def _keep_freed_memory() -> None:
    """Where the C library is glibc: once a block near its limit has been freed, smaller ones that are freed stay with the
    process (mallopt(3), M_MMAP_THRESHOLD). Else each batch gets its layers' buffers from the system anew, page by page, which
    took up to a tenth of the time."""
    torch.empty(31 << 20, dtype=torch.uint8)  # never written, so it costs no memory itself


def encode_batches(
    runtime: EncoderRuntime, tokens: Ragged, rows: IntArray, batch_tokens: int
) -> Iterator[tuple[IntArray, FloatArray]]:
    """Some rows, shortest first: (M,) rows and (M, D) vectors, batch by batch, each batch on a core of its own.

    A batch a core beats all cores on one batch: nobody waits for anybody, also where other work takes a core away.
    batch_tokens: padded tokens of a batch, at most; without a GPU a core's cache sets a limit below it.
    """
    on_gpu = torch.cuda.is_available()
    batches = list(token_batches(tokens, rows, batch_tokens if on_gpu else min(batch_tokens, _CORE_TOKENS)))

    def encode(batch: IntArray) -> FloatArray:
        vectors: FloatArray = runtime.encode(*pad_tokens(tokens.take(batch))).numpy()
        return vectors

    n_workers = min(free_cores(), torch.get_num_threads(), len(batches))
    if n_workers <= 1 or on_gpu:
        yield from ((batch, encode(batch)) for batch in batches)
        return
    _keep_freed_memory()
    before = torch.get_num_threads()
    pool = ThreadPoolExecutor(n_workers, initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield from zip(batches, pool.map(encode, batches), strict=True)
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(before)  # new threads begin with what was set last, in whichever thread
