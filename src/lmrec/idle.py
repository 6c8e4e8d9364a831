"""What was chosen and changes nothing: said with its reason, never left unsaid.

One table says of every key what it needs to be heard. `REFUSED`: the key is of an alternative that was not taken, such as the
heads of a plain mean; `load_recipe` refuses it. `NOTED`: the key is of something that is switched off, as
`--set training.tuned_epochs=0` does over a recipe that is shared; a fit says so in a note. All other keys are always heard.

A choice is a value other than the default. One that switches off (0, false, an empty list) is obeyed wherever it stands.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from pydantic import BaseModel

from lmrec.models.adapters import SETTINGS_OF_KIND

if TYPE_CHECKING:
    from lmrec.recipe import Recipe

Condition: TypeAlias = "Callable[[Recipe], bool]"


@dataclass(frozen=True)
class Rule:
    """The keys are heard where `holds`. needs: the same in words, after "without"."""

    keys: tuple[str, ...]
    needs: str
    holds: Condition


@dataclass(frozen=True)
class Idle:
    """A choice that changes nothing, for want of what it needs. refused: a recipe is not to say it."""

    key: str
    value: Any
    default: Any
    needs: str
    refused: bool

    def __str__(self) -> str:
        usual = "" if self.default is None else f", or set it to {self.default!r}"
        return (
            f"{self.key} is {self.value!r}, and nothing would come of it without {self.needs}. Choose that, or leave "
            f"{self.key} out{usual}"
        )


def _of(part: str, names: str, needs: str, holds: Condition) -> Rule:
    return Rule(tuple(f"{part}.{name}" for name in names.split()), needs, holds)


def _adapters() -> Iterator[Rule]:
    for name in sorted({name for names in SETTINGS_OF_KIND.values() for name in names}):
        kinds = [kind for kind, names in SETTINGS_OF_KIND.items() if name in names]
        needs = "encoder.adapter.kind " + " or ".join(f"'{kind}'" for kind in kinds)
        yield _of("encoder.adapter", name, needs, lambda r, kinds=kinds: r.encoder.adapter.kind in kinds)  # type: ignore[misc]


_TRAINING: Final = "a training (training.frozen_epochs above 0, or training.tuned_epochs)"
# The judge's id-only rival is trained by the recipe's own choices, also beside a run that is not trained so.
_OWN_TRAINING: Final = f"{_TRAINING}; only the rival id_sequence may learn by it"
_FIRST: Final = "a first stage (training.frozen_epochs above 0); only the rival id_sequence may learn by it"
_TUNING: Final = (
    "a language model that learns (training.tuned_epochs above 0, encoder.train other than 'none', item.source other than "
    "'id')"
)
_VALIDATION: Final = "a validation part (split.validation above 0; of split.kind 'none' also training.refit)"
_TEST: Final = "a test part (split.kind other than 'none', split.test above 0)"
_TOWERS: Final = "a user_model.kind other than 'text'"


def _has_validation(recipe: "Recipe") -> bool:
    split = recipe.split
    if split.kind == "none":
        return split.validation > 0 and recipe.refits
    return split.kind in ("last", "last_n") or split.validation > 0


def _has_test(recipe: "Recipe") -> bool:
    split = recipe.split
    return split.kind in ("last", "last_n") or (split.kind != "none" and split.test > 0)


def _has_layers(recipe: "Recipe") -> bool:
    """Of the run itself, or of the id-only rival, which has them where the run reads histories as text."""
    kind = recipe.user_model.kind
    return kind == "transformer" or (kind == "text" and "id_sequence" in recipe.baselines.names)


def _is_cut(recipe: "Recipe") -> bool:
    """Whether what compress tries is less than all heads and units."""
    return recipe.compress.kept is None or min(recipe.compress.kept) < 1


REFUSED: Final = (
    _of("data", "weight_scale", "data.weight_from 'weight'", lambda r: r.data.weight_from == "weight"),
    _of("split", "n", "split.kind 'last_n'", lambda r: r.split.kind == "last_n"),
    _of("split", "seed", "split.kind 'cold_items' or 'cold_users'", lambda r: r.split.kind in ("cold_items", "cold_users")),
    _of("template", "user",
        "histories that are read as text (user_model.kind 'text'); what a reranker reads is reranker.user",
        lambda r: r.user_model.kind == "text"),
    _of("template", "shorten",
        "template.max_words above 0, such as three quarters of encoder.max_tokens, or reranker.max_words",
        lambda r: r.template.max_words > 0 or r.reranker.max_words > 0),
    *_adapters(),
    _of("encoder.adapter", "kind", _TUNING, lambda r: r.tunes),
    _of("encoder", "checkpointing", _TUNING, lambda r: r.tunes),
    _of("item", "whiten", "words to make items of (item.source 'text' or 'text+id')", lambda r: r.item.source != "id"),
    _of("item", "id_dropout", "item.source 'text+id'", lambda r: r.item.source == "text+id"),
    _of("user_model", "layers heads", "user_model.kind 'transformer'", _has_layers),
    _of("user_model", "dropout", _TOWERS, lambda r: r.user_model.kind != "text" or _has_layers(r)),
    _of("user_model", "item_dropout", _TOWERS, lambda r: r.user_model.kind != "text"),
    _of("head", "temperature", "head.kind 'cosine'", lambda r: r.head.kind == "cosine"),
    _of("training", "momentum", "training.optimizer 'sgd'", lambda r: r.training.optimizer == "sgd"),
    _of("training", "layer_decay", _TUNING, lambda r: r.tunes),
    _of("training", "layer_decay",
        "layers one above the other that learn (encoder.train other than 'last_layers', or encoder.n_layers above 1)",
        lambda r: r.encoder.train != "last_layers" or r.encoder.n_layers > 1),
    _of("training", "mask_seen ema start_seed momentum", _TRAINING, lambda r: r.trains),
    _of("objective", "max_full_items", "objective.kind 'auto'", lambda r: r.objective.kind == "auto"),
    _of("objective.sampler", "kind n_negatives exponent uniform_share n_queries",
        "drawn negatives (objective.kind 'sampled', or 'auto')",
        lambda r: r.objective.kind != "full"),
    _of("objective.sampler", "exponent",
        "objective.sampler.kind 'popularity'",
        lambda r: r.objective.sampler.kind == "popularity"),
    _of("objective.sampler", "uniform_share", "objective.sampler.kind 'mixed'", lambda r: r.objective.sampler.kind == "mixed"),
    _of("objective.sampler", "n_queries", "objective.sampler.kind 'hard'", lambda r: r.objective.sampler.kind == "hard"),
    _of("objective.auxiliary", "weight min_items",
        "objective.auxiliary.column",
        lambda r: r.objective.auxiliary.column is not None),
    _of("objective", "trend_half_life_days",
        "fusion.popularity, for towers that learn beside what is popular are served beside it",
        lambda r: r.fusion.popularity),
    _of("objective", "shown_negatives", "objective.shown above 0", lambda r: r.objective.shown > 0),
    _of("objective", "kind candidates max_full_items label_smoothing shown", _TRAINING, lambda r: r.trains),
    _of("objective.auxiliary", "column", _TRAINING, lambda r: r.trains),
    _of("augment.words", "synonyms swap delete back_translate", _TRAINING, lambda r: r.trains),
    _of("augment.words", "wordnet", "augment.words.synonyms above 0", lambda r: r.augment.words.synonyms > 0),
    _of("augment.words", "variants",
        "something that makes them (augment.words.synonyms, swap, delete or back_translate)",
        lambda r: r.augment.words.any),
    _of("augment.history", "kinds", _TRAINING, lambda r: r.trains),
    _of("augment.history", "share", "augment.history.kinds", lambda r: bool(r.augment.history.kinds)),
    _of("augment.history", "crop_keep", "'crop' in augment.history.kinds", lambda r: "crop" in r.augment.history.kinds),
    _of("augment.history", "mask_share", "'mask' in augment.history.kinds", lambda r: "mask" in r.augment.history.kinds),
    _of("augment.history", "reorder_share",
        "'reorder' in augment.history.kinds",
        lambda r: "reorder" in r.augment.history.kinds),
    _of("regularisers", "r_drop",
        "some dropout, for two passes to differ (user_model.dropout, user_model.item_dropout, item.id_dropout; of "
        "user_model.kind 'text' encoder.dropout, encoder.adapter.dropout)",
        lambda r: r.drops),
    _of("regularisers", "r_drop", _TRAINING, lambda r: r.trains),
    _of("regularisers", "l2_sp", _TUNING, lambda r: r.tunes),
    _of("regularisers", "l2_sp",
        "encoder.adapter.kind 'none': an adapter leaves the pretrained weights as they are",
        lambda r: r.encoder.adapter.kind == "none"),
    _of("adversarial", "kind", _TRAINING, lambda r: r.trains),
    _of("adversarial", "radius", "an adversarial.kind", lambda r: r.adversarial.kind != "none"),
    _of("adversarial", "steps",
        "adversarial.kind 'pgd', 'freelb' or 'smart'",
        lambda r: r.adversarial.kind in ("pgd", "freelb", "smart")),
    _of("adversarial", "weight", "adversarial.kind 'smart'", lambda r: r.adversarial.kind == "smart"),
    _of("baselines", "search_cases",
        "a rival with settings to search in baselines.names",
        lambda r: bool({*r.baselines.names} - {"popularity", "id_sequence"})),
    _of("update", "tuned_epochs",
        "a language model that may learn (encoder.train other than 'none', item.source other than 'id')",
        lambda r: r.encoder.train != "none" and r.item.source != "id"),
    _of("reranker", "negatives n_negatives", "reranker.task 'binary'", lambda r: r.reranker.task == "binary"),
    _of("reranker", "train rank n_layers n_events epochs batch_pairs learning_rate head_learning_rate weight_decay dropout",
        "a reranker.form that learns ('classifier' or 'yes_no')",
        lambda r: r.reranker.form != "likelihood"),
    _of("reranker", "rank", "reranker.train 'lora'", lambda r: r.reranker.train == "lora"),
    _of("reranker", "n_layers", "reranker.train 'last_layers'", lambda r: r.reranker.train == "last_layers"),
    _of("reranker", "head_learning_rate",
        "a fresh head (reranker.form 'classifier')",
        lambda r: r.reranker.form == "classifier"),
    _of("reranker", "user",
        "another user_model.kind than 'text': what such a run and its reranker read of users is template.user",
        lambda r: r.user_model.kind != "text"),
    _of("compress", "parts importance_texts", "a share below 1 in compress.kept", _is_cut),
    _of("compress", "rate_share", "compress.tower_epochs above 0", lambda r: r.compress.tower_epochs > 0),
    _of("index", "exact_mb", "index.kind 'auto'", lambda r: r.index.kind == "auto"),
    _of("index", "recall", "an index.kind other than 'exact'", lambda r: r.index.kind != "exact"),
    _of("pretrain", "mask_share", "pretrain.objective 'mlm'", lambda r: r.pretrain.objective == "mlm"),
    _of("pretrain", "head_epochs", "pretrain.objective 'mlm' or 'clm'", lambda r: r.pretrain.objective in ("mlm", "clm")),
    _of("pretrain", "temperature",
        "pretrain.objective 'simcse' or 'pairs'",
        lambda r: r.pretrain.objective in ("simcse", "pairs")),
    _of("pretrain", "pair_distance max_pairs", "pretrain.objective 'pairs'", lambda r: r.pretrain.objective == "pairs"),
    _of("pretrain", "new_word_count new_word_pieces", "pretrain.new_words above 0", lambda r: r.pretrain.new_words > 0),
    _of("tune", "startup", "tune.sampler 'tpe' or tune.prune", lambda r: r.tune.sampler == "tpe" or r.tune.prune),
)  # fmt: skip

NOTED: Final = (
    _of("objective", "trend_half_life_days", _OWN_TRAINING, lambda r: r.trains),
    _of("split", "validation", "a split by shares (split.kind)", lambda r: r.split.kind not in ("last", "last_n")),
    _of("split", "test",
        "a split by shares that has a test part (split.kind)",
        lambda r: r.split.kind not in ("last", "last_n", "none")),
    _of("encoder", "n_layers",
        "encoder.train 'last_layers' or 'all_but_first'",
        lambda r: r.encoder.train in ("last_layers", "all_but_first")),
    _of("encoder", "n_layers", _TUNING, lambda r: r.tunes),
    _of("encoder", "train",
        "a second stage on words (training.tuned_epochs above 0, item.source other than 'id')",
        lambda r: r.tunes or r.encoder.train == "none"),
    _of("encoder", "dropout",
        "a language model that runs while something learns (training.tuned_epochs above 0, encoder.train other than 'none'; "
        "or user_model.kind 'text')",
        lambda r: r.tunes or (r.trains and r.user_model.kind == "text")),
    _of("encoder", "states_mb",
        "layers below those that learn (encoder.train 'last_layers' or 'all_but_first') whose words nobody shifts "
        "(adversarial.kind 'none')",
        lambda r: r.encoder.train in ("last_layers", "all_but_first") and r.adversarial.kind == "none"),
    _of("encoder", "states_mb", _TUNING, lambda r: r.tunes),
    _of("item", "width source whiten id_dropout", _OWN_TRAINING, lambda r: r.trains),
    _of("user_model", "kind max_history layers heads dropout item_dropout profile", _OWN_TRAINING, lambda r: r.trains),
    _of("head", "kind temperature width", _OWN_TRAINING, lambda r: r.trains),
    _of("training", "tuned_epochs",
        "a language model that may learn (encoder.train other than 'none', item.source other than 'id')",
        lambda r: r.encoder.train != "none" and r.item.source != "id"),
    _of("training", "weight_decay optimizer schedule warmup_share max_grad_norm accumulate refit snapshots patience precision",
        _OWN_TRAINING,
        lambda r: r.trains),
    _of("training", "batch_events learning_rate", _FIRST, lambda r: r.training.frozen_epochs > 0),
    _of("training", "tuned_batch_events tuned_learning_rate encoder_learning_rate encoder_interval max_encoded_items",
        _TUNING,
        lambda r: r.tunes),
    _of("training", "patience validation_cases", _VALIDATION, _has_validation),
    _of("fusion", "method search_cases",
        "something that is fused (fusion.transitions, content, popularity, als, ease or bm25_knn)",
        lambda r: r.fusion.any or (r.fusion.repeats and not r.evaluation.exclude_seen)),
    _of("fusion", "method search_cases", _VALIDATION, _has_validation),
    _of("baselines", "names search_cases", _TEST, _has_test),
    _of("tracking", "project", "'wandb' in tracking.to", lambda r: "wandb" in r.tracking.to),
)  # fmt: skip


def unheard(recipe: "Recipe") -> dict[str, tuple[Rule, bool]]:
    """Of every key that would change nothing, the rule that is not kept and whether a recipe that says the key is refused."""
    found: dict[str, tuple[Rule, bool]] = {}
    for rules, refused in ((REFUSED, True), (NOTED, False)):
        for rule in rules:
            if not rule.holds(recipe):
                for key in rule.keys:
                    found.setdefault(key, (rule, refused))
    return found


def find_idle(recipe: "Recipe") -> tuple[Idle, ...]:
    """The choices of a recipe that change nothing, in the order of its keys."""
    silent = unheard(recipe)
    return tuple(
        Idle(key, value, default, silent[key][0].needs, silent[key][1])
        for key, value, default in choices(recipe)
        if key in silent
    )


def idle_notes(idle: tuple[Idle, ...]) -> list[str]:
    """One note for all that want the same."""
    keys_of: dict[str, list[str]] = {}
    for one in idle:
        keys_of.setdefault(one.needs, []).append(one.key)
    return [
        f"{', '.join(keys)} change{'s' if len(keys) == 1 else ''} nothing here without {needs}"
        for needs, keys in keys_of.items()
    ]


def choices(config: BaseModel, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(key, value, default) of all that was chosen and does more than switch off what is off."""
    for name, field in type(config).model_fields.items():
        key, value = f"{prefix}{name}", getattr(config, name)
        if isinstance(value, BaseModel):
            yield from choices(value, f"{key}.")
            continue
        default = field.get_default(call_default_factory=True)
        if value != default and (value or default is None):
            yield key, value, default
