"""What is trained: language model, two towers and the cache of text vectors between them, with one loss.

Two regimes. *Frozen*: text vectors are fixed and only the towers learn. *Tuned*: the towers learn on the cached vectors
of the whole catalog, and the exact gradient of the loss with respect to every item's text vector is added up on the
side. Every few steps the items that matter most by that gradient are encoded, each once, and it is passed on into the
language model; their fresh vectors go into the cache, which is rebuilt whole between epochs. Layers below those that
learn run once (lmrec.models.reading).

Which items are encoded matters. Those of the batch alone are nearly all positives: each step would push every fresh
vector towards the users, with nobody to push back, and validation falls (docs/LOG.md). Here an item is drawn with a
probability in proportion to its gradient's length and its gradient is divided by that probability: in expectation it is
the gradient of the plain full softmax, with the least variance that so many encodings can buy. Splitting the gradient at
the text vectors is Gao et al. 2021 (GradCache), https://arxiv.org/abs/2101.06983.

Under attack (lmrec.training.perturb) the first regime shifts the items' text vectors, as a change of their words would.
The second shifts the word embeddings of what it encodes: of histories that are read as text up the loss itself, of items up
the same scalar that passes the gradient on, which to first order in the text vectors is uphill in the loss, too. The cache
then holds what the items' shifted words became, so the next gradient is taken there.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lmrec.artifacts.pretrained import cache_folder
from lmrec.fields import FloatArray, IntArray, Ragged
from lmrec.models.encoder import EncoderConfig, TextEncoder, pad_tokens, token_batches
from lmrec.models.reading import TextReader, Way, build_reader, checkpoint_layers
from lmrec.models.two_tower import TwoTower
from lmrec.progress import Progress
from lmrec.training.batches import TrainBatch, take_targets
from lmrec.training.generators import generators, generators_at, set_generators
from lmrec.training.losses import FullSoftmax, Objective
from lmrec.training.objectives import Asked, Seen
from lmrec.training.perturb import AdversarialConfig, Ball, adversarial_losses
from lmrec.training.regularisers import Pull, RegularisersConfig, pull_to
from lmrec.training.variants import TextVariants

Regime = Literal["frozen", "tuned"]
# Histories as item rows, and words of whom each is of -> their text's token ids
HistoryTokens = Callable[[list[IntArray], Sequence[str] | None], Ragged]


@dataclass(frozen=True)
class DrawnItems:
    """item_idx: (M,) rows, ascending. scale: (M,) 1 / the probability with which each was drawn."""

    item_idx: IntArray
    scale: FloatArray

    def scale_of(self, rows: IntArray) -> FloatArray:
        """The scales of the same rows in another order."""
        return self.scale[np.searchsorted(self.item_idx, rows)]


@dataclass(frozen=True, eq=False)
class Histories:
    """Of each of T targets the token ids of its history, and (T, L, E) what is added to their embeddings; None: nothing."""

    tokens: Ragged
    shift: Tensor | None = None


def draw_items(importance: FloatArray, n_most: int, rng: np.random.Generator) -> DrawnItems:
    """Draw at most `n_most` rows, each with a probability in proportion to its importance (N,) >= 0, at most 1.

    Systematic sampling: the probabilities are laid end to end and cut at a random phase, so that their sum is what is
    drawn. Where all rows of importance fit, all are drawn, at scale 1. Source: Madow 1949.
    """
    probability = np.zeros(len(importance))
    certain = np.zeros(len(importance), np.bool_)
    rest = importance > 0
    while rest.any():
        room = n_most - int(certain.sum())
        probability[rest] = room * importance[rest] / importance[rest].sum()
        over = rest & (probability >= 1.0)
        if not over.any():
            break
        certain |= over
        rest &= ~over
    probability[certain] = 1.0
    edges = np.floor(np.concatenate([[0.0], np.cumsum(probability)]) + rng.uniform(1e-9, 1.0))
    drawn = np.flatnonzero(certain | (np.diff(edges) > 0))
    return DrawnItems(drawn, (1.0 / probability[drawn]).astype(np.float32))


class Learner(nn.Module):
    """Called with a batch and the step's random generator, it returns the loss.

    history_tokens: renders and tokenises histories; needed where the user model reads text.
    mask_seen: items of a target's history are no candidates in its softmax, as they are none when judged and served.
    autocast: the precision that the language model runs in, a maker of contexts; who trains sets it.
    pull: a penalty that is added to the loss while training, such as the distance to earlier weights.
    objective: what is learnt; by default the softmax over the whole catalog.
    variants: other texts of each item, read in its own text's place while training.
    regularisers, adversarial: what is asked of the model beyond that; the pretrained weights are those that it comes with.
    """

    text_vec: Tensor
    text_grad: Tensor

    def __init__(
        self,
        towers: TwoTower,
        encoder: TextEncoder | None,
        tokens: Ragged | None,
        text_vec: Tensor,
        encoder_config: EncoderConfig,
        max_encoded_items: int,
        history_tokens: HistoryTokens | None = None,
        mask_seen: bool = True,
        pull: Pull | None = None,
        objective: Objective | None = None,
        variants: TextVariants | None = None,
        regularisers: RegularisersConfig | None = None,
        adversarial: AdversarialConfig | None = None,
    ) -> None:
        super().__init__()
        self.towers = towers
        self.encoder = encoder
        self.tokens = tokens
        self.register_buffer("text_vec", text_vec)  # (N, Dt), the cache
        self.register_buffer("text_grad", torch.zeros_like(text_vec))  # (N, Dt), what has not reached the PLM yet
        self.encoder_config = encoder_config
        self.max_encoded_items = max_encoded_items
        self.history_tokens = history_tokens
        self.mask_seen = mask_seen
        self.pull = pull
        self.objective: Objective = objective or FullSoftmax()
        self.variants = variants
        self.regularisers = regularisers or RegularisersConfig()
        self.adversarial = adversarial or AdversarialConfig()
        self.start_pull = pull_to(encoder, self.regularisers.l2_sp) if encoder is not None else None
        if encoder is not None and encoder_config.checkpointing:
            checkpoint_layers(encoder.backbone)
        self.regime: Regime = "frozen"
        self.autocast: Callable[[], AbstractContextManager[Any]] = nullcontext
        self._reader: TextReader | None = None
        self._variant_reader: TextReader | None = None

    def forward(self, batch: TrainBatch, rng: np.random.Generator) -> Tensor:
        text_vec = self._watched_cache() if self.regime == "tuned" and self.training else self._drawn_texts(rng)
        with torch.autocast(text_vec.device.type, enabled=False):
            return self._loss(self._affordable(batch, rng), rng, text_vec)

    def losses(self, batch: TrainBatch, rng: np.random.Generator) -> Iterator[Tensor]:
        """Scalars whose gradients add up to the training loss's. Call backward on each before the next is taken."""
        reads_text = self.towers.user_model is None
        if self.adversarial.kind == "none" or (self.regime == "tuned" and not reads_text):
            yield self(batch, rng)
        elif self.regime == "frozen":
            yield from self._under_attack(self._affordable(batch, rng), rng, self.adversarial)
        else:
            yield from self._with_shifted_histories(self._affordable(batch, rng), rng)

    def attacked_loss(self, batch: TrainBatch, rng: np.random.Generator, attack: AdversarialConfig) -> float:
        """The loss where the items' text vectors are shifted by `attack` (pgd), with what is learnt left as it is."""
        (loss,) = self._under_attack(self._affordable(batch, rng), rng, attack)
        return float(loss.detach())

    def _drawn_texts(self, rng: np.random.Generator) -> Tensor:
        """(N, Dt) the cache; while the first stage trains, of each item one of its texts."""
        if self.variants is not None and self.regime == "frozen" and self.training:
            return self.variants.draw_vectors(self.text_vec, rng)
        return self.text_vec

    def _affordable(self, batch: TrainBatch, rng: np.random.Generator) -> TrainBatch:
        return one_target_a_window(batch, rng) if self.towers.user_model is None else batch

    def _under_attack(self, batch: TrainBatch, rng: np.random.Generator, attack: AdversarialConfig) -> Iterator[Tensor]:
        """The losses of `perturb.adversarial_losses` with shifts of the items' text vectors."""
        text_vec = self._drawn_texts(rng)
        alike = Alike(rng)

        def loss_at(shift: Tensor) -> Tensor:
            with alike.again() as same:
                return self._loss(batch, same, text_vec + shift)

        def drift_at(shift: Tensor) -> Tensor:
            with alike.again():
                plain = self._ask(batch, text_vec)
            with alike.again() as same:
                return self.objective.divergence(plain, self._ask(batch, text_vec + shift), same)

        ball = Ball.around(text_vec, attack.ball_radius)
        yield from adversarial_losses(attack, ball, loss_at, drift_at, rng)
        alike.move_on()

    def _with_shifted_histories(self, batch: TrainBatch, rng: np.random.Generator) -> Iterator[Tensor]:
        """The losses of `perturb.adversarial_losses` with shifts of the word embeddings of histories."""
        assert self.encoder is not None
        text_vec, tokens = self._watched_cache(), self._tokens_of_histories(batch)
        alike = Alike(rng)

        def loss_at(shift: Tensor) -> Tensor:
            with alike.again() as same:
                return self._loss(batch, same, text_vec, Histories(tokens, shift))

        def drift_at(shift: Tensor) -> Tensor:
            with alike.again():
                plain = self._ask(batch, text_vec, Histories(tokens))
            with alike.again() as same:
                return self.objective.divergence(plain, self._ask(batch, text_vec, Histories(tokens, shift)), same)

        ids, mask = (tensor.to(text_vec.device) for tensor in pad_tokens(tokens))
        words = self.encoder.embed_words(ids).detach()
        ball = Ball.around(words, self.adversarial.ball_radius, mask.unsqueeze(-1))
        yield from adversarial_losses(self.adversarial, ball, loss_at, drift_at, rng)
        alike.move_on()

    def _loss(
        self, batch: TrainBatch, rng: np.random.Generator, text_vec: Tensor, histories: Histories | None = None
    ) -> Tensor:
        asked = self._ask(batch, text_vec, histories)
        if not self.training:
            return self.objective(asked, rng)
        if strength := self.regularisers.r_drop:
            # Half of the paper's loss, so that a rate that suits one pass suits two: Liang et al. 2021.
            again = self._ask(batch, text_vec, histories)
            both = self.objective(asked, rng) + self.objective(again, rng)
            loss = both / 2 + strength / 4 * self.objective.divergence(asked, again, rng)
        else:
            loss = self.objective(asked, rng)
        return loss + self.pull(self.towers) if self.pull is not None else loss

    def _ask(self, batch: TrainBatch, text_vec: Tensor, histories: Histories | None = None) -> Asked:
        """One pass of the towers, in the precision chosen: what the objective reads, in fp32.

        histories: those of the batch where they are read as text; None: made here.
        """
        with self.autocast():
            item_vec = self.towers.item_tower(text_vec)
            if self.towers.user_model is None:
                user_vec = self._users_from_text(batch, histories or Histories(self._tokens_of_histories(batch)))
            else:
                states = self.towers.user_states(*read_items(item_vec, batch), batch.history_mask, batch.profile)
                user_vec = states[batch.target_row, batch.target_state]
        head = self.towers.head
        return Asked(
            head.prepare(user_vec),
            head.prepare(item_vec),
            batch.target_idx,
            batch.target_weight,
            head.scale.float(),
            seen_before(batch) if self.mask_seen else None,
            batch.shown,
            batch.target_time,
        )

    def refresh(self, progress: Progress | None = None) -> None:
        """Rebuild the whole cache with the language model as it is now."""
        if self.encoder is not None and self.tokens is not None:
            self.text_vec.copy_(torch.from_numpy(self.reader.encode_all(progress)))

    def pass_on(self, rng: np.random.Generator) -> Iterator[Tensor]:
        """Encode the drawn items batch by batch: scalars whose gradients in the language model add up to the loss's.

        Call backward on each before the next is taken: memory is that of one batch, however many items are drawn. The
        cache takes the fresh vectors, and what was added up starts again from zero.
        """
        importance = self.text_grad.norm(dim=1).double().cpu().numpy()
        drawn = draw_items(importance, self.max_encoded_items, rng)
        if self.adversarial.kind == "none":
            for rows, fresh in self._read_drawn(drawn.item_idx, rng):
                places, gradient = self._due(drawn, rows)
                yield (fresh * gradient).sum()
                self.text_vec[places] = fresh.detach()
        else:
            yield from self._pass_on_attacked(drawn, rng)
        self.text_grad.zero_()

    def penalties(self) -> Iterator[Tensor]:
        """What the language model's weights are charged beside the loss, for one batch of it. Call backward on each."""
        if self.encoder is not None:
            if self.start_pull is not None:
                yield self.start_pull(self.encoder)
            if self.encoder.allocation is not None:
                yield self.encoder.allocation.penalty()

    def _due(self, drawn: DrawnItems, rows: IntArray) -> tuple[Tensor, Tensor]:
        """Where these rows stand, and the gradient (M, Dt) that the language model is to get for them."""
        places = torch.from_numpy(rows).to(self.text_vec.device)
        scale = torch.from_numpy(drawn.scale_of(rows)).to(self.text_vec).unsqueeze(1)
        return places, self.text_grad[places] * scale

    def _pass_on_attacked(self, drawn: DrawnItems, rng: np.random.Generator) -> Iterator[Tensor]:
        """As `pass_on`, with shifts of the word embeddings: all layers run, for what is shifted is below them.

        The cache takes the vectors under attack, so that the towers, and the gradient that they send next, know these too.
        """
        assert self.encoder is not None
        encoder, device = self.encoder, self.text_vec.device
        way = Way(self.encoder_config.batch_tokens, device, self.autocast)
        alike, asked_last = Alike(rng), self.text_vec
        for rows, tokens in self._drawn_tokens(drawn.item_idx, rng):
            ids, mask = (tensor.to(device) for tensor in pad_tokens(tokens))
            places, gradient = self._due(drawn, rows)

            def encode(shift: Tensor) -> Tensor:
                with alike.again(), way.run():
                    words = encoder.embed_words(ids)  # noqa: B023 - called before the next batch
                    vectors: Tensor = encoder(ids, mask, words + shift)  # noqa: B023
                return vectors

            def loss_at(shift: Tensor) -> Tensor:
                nonlocal asked_last
                asked_last = encode(shift)
                return (asked_last * gradient).sum()  # noqa: B023

            def drift_at(shift: Tensor) -> Tensor:
                """The mean square by which the items' scores move, over what was drawn and users of any direction."""
                head, project = self.towers.head, self.towers.item_tower.project
                plain, moved = (head.prepare(project(encode(at))) for at in (torch.zeros_like(shift), shift))
                return head.scale.square() * (plain - moved).square().mean(1).sum() / len(drawn.item_idx)

            ball = Ball.around(encoder.embed_words(ids).detach(), self.adversarial.ball_radius, mask.unsqueeze(-1))
            yield from adversarial_losses(self.adversarial, ball, loss_at, drift_at, rng)
            self.text_vec[places] = asked_last.detach()
            alike.move_on()

    @property
    def reader(self) -> TextReader:
        """How the catalog is read; made when it is first needed, on the device and in the precision of then."""
        assert self.tokens is not None, "the tuned regime needs a language model"
        if self._reader is None:
            self._reader = self._build_reader(self.tokens)
        return self._reader

    def _build_reader(self, tokens: Ragged) -> TextReader:
        assert self.encoder is not None, "the tuned regime needs a language model"
        config = self.encoder_config
        way = Way(config.batch_tokens, self.text_vec.device, self.autocast)
        # Words that are shifted go through all layers, so what the lower ones make of them cannot be kept.
        kept_mb = config.states_mb if self.adversarial.kind == "none" else 0
        return build_reader(self.encoder, tokens, way, kept_mb, cache_folder() / "states")

    def _read_drawn(self, item_idx: IntArray, rng: np.random.Generator) -> Iterator[tuple[IntArray, Tensor]]:
        """Batches of (M,) rows and (M, Dt) their vectors with gradient, each item by its own text or a drawn variant's."""
        if self.variants is None:
            yield from self.reader.encode_rows(item_idx)
            return
        if self._variant_reader is None:
            self._variant_reader = self._build_reader(self.variants.tokens)
        own, varied = self._draw_texts(item_idx, self.variants, rng)
        yield from self.reader.encode_rows(own)
        for rows, fresh in self._variant_reader.encode_rows(varied):
            yield rows % self.variants.n_items, fresh

    def _draw_texts(
        self, item_idx: IntArray, variants: TextVariants, rng: np.random.Generator
    ) -> tuple[IntArray, IntArray]:
        """The items that are read by their own text, and for the others a row of `variants.tokens`."""
        number = variants.draw_numbers(len(item_idx), rng)
        return item_idx[number < 0], (number * variants.n_items + item_idx)[number >= 0]

    def _drawn_tokens(self, item_idx: IntArray, rng: np.random.Generator) -> Iterator[tuple[IntArray, Ragged]]:
        """The same as batches of (M,) items and their token ids."""
        assert self.tokens is not None
        own, n_tokens = item_idx, self.encoder_config.batch_tokens
        if self.variants is not None:
            own, varied = self._draw_texts(item_idx, self.variants, rng)
            for rows in token_batches(self.variants.tokens, varied, n_tokens):
                yield rows % self.variants.n_items, self.variants.tokens.take(rows)
        for rows in token_batches(self.tokens, own, n_tokens):
            yield rows, self.tokens.take(rows)

    def _watched_cache(self) -> Tensor:
        """The cache as a leaf whose gradient is added to `text_grad`."""
        leaf = self.text_vec.detach().clone().requires_grad_(True)
        leaf.register_hook(self._add_gradient)  # type: ignore[no-untyped-call]
        return leaf

    def _add_gradient(self, gradient: Tensor) -> None:
        self.text_grad.add_(gradient)

    def _tokens_of_histories(self, batch: TrainBatch) -> Ragged:
        """(T,) rows of token ids: each target's history, written as text."""
        assert self.history_tokens is not None, "a text user model needs a language model"
        rows, states = batch.target_row.cpu().numpy(), batch.target_state.cpu().numpy()
        items = batch.history_idx.cpu().numpy()
        if batch.hidden is None:
            histories = [items[row, :state] for row, state in zip(rows, states, strict=True)]
        else:
            read = ~batch.hidden.cpu().numpy()
            histories = [items[row, :state][read[row, :state]] for row, state in zip(rows, states, strict=True)]
        return self.history_tokens(histories, None if batch.words is None else batch.words[rows].tolist())

    def _users_from_text(self, batch: TrainBatch, histories: Histories) -> Tensor:
        """(T, D), one pass of the language model for each target's history."""
        assert self.encoder is not None, "a text user model needs a language model"
        device, n_tokens = self.text_vec.device, self.encoder_config.batch_tokens
        with torch.set_grad_enabled(self.regime == "tuned" and torch.is_grad_enabled()):
            text_vec = encode_histories(self.encoder, histories.tokens, device, n_tokens, histories.shift)
        profile = None if batch.profile is None else batch.profile[batch.target_row]
        known = _reads_something(batch)
        if batch.words is not None:
            rows = batch.target_row.cpu().numpy()
            known = known | torch.from_numpy(batch.words[rows] != "").to(known.device)
        return self.towers.user_from_text(text_vec, known, profile)


def _reads_something(batch: TrainBatch) -> Tensor:
    """(T,) whether a target has an event before it that is not hidden."""
    if batch.hidden is None:
        return batch.target_state > 0
    n_read = nn.functional.pad((~batch.hidden).long().cumsum(1), (1, 0))  # (B, 1 + H) before each place
    return n_read[batch.target_row, batch.target_state] > 0


def read_items(item_vec: Tensor, batch: TrainBatch) -> tuple[Tensor, Tensor]:
    """Item vectors and (B, H) rows in them for the user model; a hidden event reads a row of zeros behind the catalog."""
    if batch.hidden is None:
        return item_vec, batch.history_idx
    nothing = item_vec.new_zeros(1, item_vec.shape[1])
    return torch.cat([item_vec, nothing]), batch.history_idx.masked_fill(batch.hidden, len(item_vec))


class Alike:
    """Passes that draw alike: the same dropout and the same negatives in each, until `move_on`."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = copy.deepcopy(rng)
        self._before = self._behind = generators()

    @contextmanager
    def again(self) -> Iterator[np.random.Generator]:
        """The context of a pass: torch's generators start as they stood, and so does the one it yields."""
        with generators_at(self._before):
            yield copy.deepcopy(self.rng)
            self._behind = generators()

    def move_on(self) -> None:
        """The next pass draws what comes behind the last one. A step less far, and both would draw nearly the same."""
        set_generators(self._behind)
        self._before = self._behind


def one_target_a_window(batch: TrainBatch, rng: np.random.Generator) -> TrainBatch:
    """The batch with one target of each window, drawn at random among those that weigh anything: what a pass of a language
    model each can afford."""
    order = rng.permutation(np.flatnonzero(batch.target_weight.cpu().numpy() > 0))
    _, first = np.unique(batch.target_row.cpu().numpy()[order], return_index=True)
    return take_targets(batch, torch.from_numpy(order[first]).to(batch.target_row.device))


def seen_before(batch: TrainBatch) -> Seen:
    """For each target (T,) the items of its window before it: no candidates, since what was seen is not recommended."""
    place = torch.arange(batch.history_idx.shape[1], device=batch.history_idx.device)
    return Seen(batch.history_idx[batch.target_row], place < batch.target_state.unsqueeze(1))


def encode_histories(
    encoder: TextEncoder, tokens: Ragged, device: torch.device, batch_tokens: int, shift: Tensor | None = None
) -> Tensor:
    """(B, Dt) vectors of B histories' token ids, in order, with gradient where it is enabled.

    shift: (B, L, E), is added to their word embeddings.
    Histories are read by like length, `batch_tokens` padded tokens at a time. Where they do not fit one pass, nothing of a
    pass but its vectors is kept: backward reads it again with the same dropout (Chen et al. 2016,
    https://arxiv.org/abs/1604.06174), so memory is that of one pass however many histories a batch has.
    """
    batches = list(token_batches(tokens, np.arange(len(tokens)), batch_tokens))
    parts = []
    for batch in batches:
        ids, mask = (tensor.to(device) for tensor in pad_tokens(tokens.take(batch)))
        words = None
        if shift is not None:
            words = encoder.embed_words(ids) + shift[torch.from_numpy(batch).to(device), : ids.shape[1]]
        if len(batches) == 1 or not torch.is_grad_enabled():
            parts.append(encoder(ids, mask, words))
        else:
            parts.append(checkpoint(encoder, ids, mask, words, use_reentrant=False))
    if not parts:
        return torch.zeros(0, encoder.width, device=device)
    order = torch.from_numpy(np.argsort(np.concatenate(batches))).to(device)
    vectors: Tensor = torch.cat(parts)[order]
    return vectors
