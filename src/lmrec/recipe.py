"""The composition root: one frozen Recipe of component configs, TOML in, TOML out, unknown keys refused.

Only this module turns names into classes.
"""

import tomllib
from collections.abc import Callable, Collection, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lmrec.data.sources.tables import TablesConfig
from lmrec.data.split import SplitConfig
from lmrec.errors import RecipeError, nearest
from lmrec.evaluation.evaluator import EvaluationConfig
from lmrec.idle import Idle, choices, find_idle
from lmrec.models.encoder import EncoderConfig
from lmrec.models.fusion import COLLABORATIVE, FusionConfig
from lmrec.models.heads import HeadConfig
from lmrec.models.two_tower import ItemTowerConfig
from lmrec.models.user_model import UserModelConfig
from lmrec.retrieval.ann import IndexConfig
from lmrec.text.augment import WordAugmentConfig
from lmrec.text.template import TemplateConfig
from lmrec.training.compress import CompressConfig
from lmrec.training.continual import UpdateConfig
from lmrec.training.distil import DistilConfig
from lmrec.training.losses import ObjectiveConfig
from lmrec.training.pairs import RerankerConfig
from lmrec.training.perturb import AdversarialConfig
from lmrec.training.pretrain import PretrainConfig
from lmrec.training.regularisers import RegularisersConfig
from lmrec.training.search import TuneConfig, why_fixed
from lmrec.training.tracking import TrackingConfig
from lmrec.training.trainer import TrainingConfig, check_snapshots
from lmrec.training.views import HistoryAugmentConfig

BaselineName = Literal[
    "popularity", "recent_popularity", "item_knn", "transitions", "als", "untuned", "id_sequence", "ease", "bm25_knn"
]
_DEFAULT_BASELINES = tuple(name for name in get_args(BaselineName) if name not in ("ease", "bm25_knn"))


class BaselinesConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    names: tuple[BaselineName, ...] = Field(
        default=_DEFAULT_BASELINES,
        description="Rivals in the table. id_sequence trains the same model without words; ease takes up to 25,000 items.",
    )
    search_cases: int = Field(
        default=4000,
        ge=1,
        description="Validation cases on which each baseline's settings are searched: the same ones whatever the seed.",
    )


# Parts of a recipe that one command alone hears, before there is a run.
_OF_ONE_COMMAND: Mapping[str, str] = {"pretrain": "lmrec pretrain", "tune": "lmrec tune"}


class AugmentConfig(BaseModel):
    """What training reads in other words and other shapes; judging and serving never do."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    words: WordAugmentConfig = WordAugmentConfig()
    history: HistoryAugmentConfig = HistoryAugmentConfig()


class Recipe(BaseModel):
    """Every choice of a run. Each table of the TOML file is one part's config."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: TablesConfig = TablesConfig()
    split: SplitConfig = SplitConfig()
    template: TemplateConfig = TemplateConfig()
    encoder: EncoderConfig = EncoderConfig()
    item: ItemTowerConfig = ItemTowerConfig()
    user_model: UserModelConfig = UserModelConfig()
    head: HeadConfig = HeadConfig()
    training: TrainingConfig = TrainingConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    augment: AugmentConfig = AugmentConfig()
    regularisers: RegularisersConfig = RegularisersConfig()
    adversarial: AdversarialConfig = AdversarialConfig()
    fusion: FusionConfig = FusionConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    baselines: BaselinesConfig = BaselinesConfig()
    update: UpdateConfig = UpdateConfig()
    reranker: RerankerConfig = RerankerConfig()
    distil: DistilConfig = DistilConfig()
    compress: CompressConfig = CompressConfig()
    index: IndexConfig = IndexConfig()
    pretrain: PretrainConfig = PretrainConfig()
    tune: TuneConfig = TuneConfig()
    tracking: TrackingConfig = TrackingConfig()

    @property
    def masks_seen(self) -> bool:
        """Whether training leaves items of the history out, which by default the judge's form decides."""
        asked = self.training.mask_seen
        return self.evaluation.exclude_seen if asked is None else asked

    @property
    def refits(self) -> bool:
        """Whether fresh towers learn again with the validation part. A history read as text has no towers of its own."""
        return self.training.refit and self.training.frozen_epochs > 0 and self.user_model.kind != "text"

    @property
    def tunes(self) -> bool:
        """Whether the second stage is asked for and has something to tune."""
        return self.training.tuned_epochs > 0 and self.encoder.train != "none" and self.item.source != "id"

    @property
    def trains(self) -> bool:
        """Whether anything learns by gradients; otherwise what is counted and the bare words answer alone."""
        return self.training.frozen_epochs > 0 or self.tunes

    @property
    def idle(self) -> tuple[Idle, ...]:
        """Choices that were made and change nothing: `lmrec.idle`."""
        return find_idle(self)

    @property
    def drops(self) -> bool:
        """Whether two passes over one batch differ while training."""
        user, item = self.user_model, self.item
        towers = user.kind != "text" and max(user.dropout, user.item_dropout) > 0
        ids = item.source == "text+id" and item.id_dropout > 0
        return towers or ids or (user.kind == "text" and max(self.encoder.dropout, self.encoder.adapter.dropout) > 0)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.user_model.kind == "transformer" and self.item.width % self.user_model.heads:
            raise ValueError(
                f"user_model.heads is {self.user_model.heads} and must divide item.width, which is {self.item.width}"
            )
        if self.head.width is not None and self.head.width > self.item.width:
            raise ValueError(
                f"head.width is {self.head.width}, and vectors have {self.item.width} numbers (item.width). Lower it, or "
                "leave it out"
            )
        if self.user_model.kind == "text" and self.item.source == "id":
            raise ValueError("user_model.kind 'text' needs words: set item.source to 'text' or 'text+id'")
        if self.augment.words.any and self.item.source == "id":
            raise ValueError(
                "augment.words changes words, and item.source 'id' reads none: set it to 'text' or 'text+id'"
            )
        if self.augment.words.any and self.user_model.kind == "text":
            raise ValueError(
                "augment.words makes variants of item texts, and user_model.kind 'text' reads whole histories: choose another "
                "user_model.kind, or leave augment.words out"
            )
        if not self.trains:
            self._answers_untrained()
        if self.tune.space:
            _check_space(self)
        return self

    def _answers_untrained(self) -> None:
        """Without training something is fused."""
        if self.training.tuned_epochs:
            raise ValueError(
                f"nothing would be trained: training.frozen_epochs is 0, and of the {self.training.tuned_epochs} of "
                f"training.tuned_epochs encoder.train '{self.encoder.train}' and item.source '{self.item.source}' leave none. "
                "Set the first above 0; or both to 0, for what is counted and the bare words to answer alone"
            )
        if not self.fusion.any:
            parts = ", ".join(f"fusion.{kind}" for kind in (*COLLABORATIVE, "content"))
            raise ValueError(
                f"nothing would be trained and nothing fused: set training.frozen_epochs above 0, or one of {parts} and "
                "fusion.popularity to true"
            )
        if self.user_model.kind == "text":
            raise ValueError(
                "user_model.kind 'text' is for a model that learns, and nothing would be trained: set training.tuned_epochs "
                "above 0, or leave user_model.kind out"
            )

    @model_validator(mode="after")
    def _harms_nothing(self) -> Self:
        """What does not go together, though each has something to act on."""
        adapter = self.encoder.adapter.kind
        for key, wrong, needs in (
            (
                "training.layer_decay",
                self.training.layer_decay != 1.0 and adapter == "prefix",
                "layers to act on, and a prefix is one for all",
            ),
            (
                "encoder.checkpointing",
                self.encoder.checkpointing and adapter == "prefix",
                "another encoder.adapter.kind than 'prefix', which layers that run again would not see",
            ),
            (
                "adversarial.kind",
                self.adversarial.kind != "none" and self.item.source == "id",
                "the words that item.source 'id' has none of",
            ),
            (
                "training.ema",
                self.training.ema is not None and adapter == "adalora" and self.tunes,
                "another encoder.adapter.kind than 'adalora': averages bring back the ranks that it takes away",
            ),
        ):
            if wrong:
                raise ValueError(f"{key} needs {needs}. Change that, or leave {key} out: nothing good would come of it")
        if self.training.snapshots:
            check_snapshots(self.training, self.refits)
        return self


def load_recipe(
    path: Path | str | Recipe | None = None,
    overrides: Sequence[str] = (),
    values: Mapping[str, Any] | None = None,
    command: str = "",
) -> Recipe:
    """A recipe from a TOML file (or one that was made), `key=value` overrides and nested values, the later ones winning.

    >>> load_recipe(overrides=["encoder.max_tokens=32"]).encoder.max_tokens
    32

    command: who asks, where overrides are a person's. Raises RecipeError, naming the key, its value, the rule and the nearest
    right name; also for a choice that would change nothing beside the others (`lmrec.idle.REFUSED`), and for an override
    that another command alone hears: a file may be that one's, too.
    """
    for key in _said(overrides) if command else ():
        owner = _OF_ONE_COMMAND.get(key.partition(".")[0], command)
        if owner != command:
            raise RecipeError(f"--set {key} is heard by `{owner}` and not by `{command}`. Leave it out")
    recipe = _read_recipe(path, overrides, values)
    _refuse_idle(recipe)
    return recipe


def load_heard(
    path: Path | str | None,
    overrides: Sequence[str],
    values: Mapping[str, Any],
    heard: Callable[[Recipe], Sequence[str]],
    command: str,
) -> tuple[Recipe, tuple[str, ...]]:
    """The recipe of a command that hears some keys alone, all others at their defaults; and which choices it does not hear.

    heard: of the recipe, keys or whole parts ("data.*"). Raises RecipeError as `load_recipe` does, and for an override of a
    key that is not heard: a file may be another command's, too.
    """
    tree = _read_tree(path, overrides, values)
    whole = _checked(tree)
    keys = heard(whole)
    for key in _said(overrides):
        if not _is_one_of(key, keys):
            raise RecipeError(f"--set {key} is not heard by {command}, which hears {_listed(keys)}. Leave it out")
    own: dict[str, Any] = {}
    for key, _, _ in describe_keys():
        found = _found(tree, key.split("."))
        if found and _is_one_of(key, keys):
            _assign(own, key.split("."), found[0], key)
    recipe = _checked(own)
    _refuse_idle(recipe)
    return recipe, tuple(key for key, _, _ in choices(whole) if not _is_one_of(key, keys))


def _found(tree: Mapping[str, Any], keys: Sequence[str]) -> tuple[Any, ...]:
    """The value that stands there, if any."""
    value: Any = tree
    for key in keys:
        if not isinstance(value, Mapping) or key not in value:
            return ()
        value = value[key]
    return (value,)


def _read_recipe(
    path: Path | str | Recipe | None, overrides: Sequence[str], values: Mapping[str, Any] | None = None
) -> Recipe:
    return _checked(_read_tree(path, overrides, values))


def _read_tree(
    path: Path | str | Recipe | None, overrides: Sequence[str], values: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    if path is not None:
        tree = path.model_dump() if isinstance(path, Recipe) else _read_toml(Path(path))
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator or not key.strip():
            raise RecipeError(f"--set '{override}' is not key=value. Example: --set encoder.max_tokens=64")
        _assign(tree, key.strip().split("."), _parse_value(text.strip()), override)
    for key, value in (values or {}).items():
        _assign(tree, key.split("."), value, key)
    return tree


def _said(overrides: Sequence[str]) -> list[str]:
    return [override.partition("=")[0].strip() for override in overrides]


def _is_one_of(key: str, keys: Sequence[str]) -> bool:
    """keys: they themselves, or whole parts ("index.*"); what lies within a key, or holds a whole part, counts too."""
    return any(fnmatchcase(key, one) or key.startswith(f"{one}.") or f"{key}.*" == one for one in keys)


def _listed(keys: Sequence[str]) -> str:
    *others, last = keys
    return f"{', '.join(others)} and {last}" if others else last


def _refuse_idle(recipe: Recipe, said: Collection[str] | None = None) -> None:
    """Raises RecipeError for choices that change nothing; said: of these keys alone."""
    refused = [str(one) for one in recipe.idle if one.refused and (said is None or one.key in said)]
    if refused:
        raise RecipeError("\n".join(refused))


def load_fitted(
    path: Path | str | None, overrides: Sequence[str] = (), changeable: Sequence[str] = (), when: str = "here"
) -> Recipe:
    """The recipe of a run that is fitted, of which overrides may change these alone: keys, or whole parts ("index.*").

    when: of what is being done, for the error. Raises RecipeError as `load_recipe`, but of what changes nothing only for
    overrides: what the run was fitted by stands; and for any other key.
    """
    said = _said(overrides)
    for key in said:
        if not _is_one_of(key, changeable):
            raise RecipeError(
                f"--set {key} cannot change {when}. {_listed(changeable)} can; for the rest fit a new run"
            )
    recipe = _read_recipe(path, overrides)
    _refuse_idle(recipe, said)
    return recipe


def recipe_toml(recipe: Recipe) -> str:
    """The recipe as TOML, every choice included; what is unset is left out, for TOML knows no null."""
    import tomli_w

    return tomli_w.dumps(_without_none(recipe.model_dump(mode="json")))


def describe_keys() -> list[tuple[str, str, str]]:
    """(key, default, effect) of every choice, for the reference page and `lmrec fit --help`."""
    return [row for part, field in Recipe.model_fields.items() for row in _rows_of(part, field.annotation)]


def _rows_of(prefix: str, config: Any) -> list[tuple[str, str, str]]:
    """A config's choices, those of a config inside it under a longer key."""
    assert isinstance(config, type) and issubclass(config, BaseModel)
    rows = []
    for name, choice in config.model_fields.items():
        key, inner = f"{prefix}.{name}", choice.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            rows += _rows_of(key, inner)
            continue
        default = choice.get_default(call_default_factory=True)
        shown = list(default) if isinstance(default, tuple) else default
        rows.append((key, "unset" if shown is None else str(shown), choice.description or ""))
    return rows


def with_choices(recipe: Recipe, choices: Mapping[str, Any]) -> Recipe:
    """The recipe with other choices, key -> value. Raises RecipeError where they do not fit; what changes nothing may stand,
    for not a person but a search has said it."""
    tree = recipe.model_dump()
    for key, value in choices.items():
        _assign(tree, key.split("."), value, key)
    return _checked(tree)


def _checked(tree: Mapping[str, Any]) -> Recipe:
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        raise RecipeError("\n".join(_explain(problem) for problem in error.errors())) from None


def _check_space(recipe: Recipe) -> None:
    """ValueError unless every key of the search space is a choice of training, and takes every choice, every end and
    what lies between two by itself."""
    known = {key for key, _, _ in describe_keys()}
    still = recipe.model_copy(update={"tune": TuneConfig()})
    for key, dimension in recipe.tune.space.items():
        if key not in known:
            raise ValueError(f"tune.space has the unknown key '{key}'. {_nearest_key(key.split('.'))}")
        if (why := why_fixed(key)) is not None:
            raise ValueError(f"tune.space cannot vary '{key}': {why}. Leave it out")
        for value in dimension.tried:
            try:
                with_choices(still, {key: value})
            except RecipeError as error:
                raise ValueError(f"tune.space: {key} = {value!r} is no recipe: {error}") from None


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecipeError(f"there is no recipe '{path}'. Give a TOML file, or none to take the defaults") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RecipeError(f"{path} is not a TOML file that can be read: {error}") from None


def _assign(tree: dict[str, Any], keys: list[str], value: Any, source: str) -> None:
    *parents, last = keys
    for key in parents:
        tree = tree.setdefault(key, {})
        if not isinstance(tree, dict):
            raise RecipeError(f"'{source}' goes through '{key}', which is a value and not a table")
    tree[last] = value


def _parse_value(text: str) -> Any:
    """TOML where it is TOML (numbers, true, lists, quoted text), otherwise the text itself."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


# What pydantic says of these names its own classes; this is the same in a user's words.
_FORMS = {
    "tuple_type": """it should be a list, such as --set '{key}=["one", "two"]'""",
    "dict_type": "it should be a table of names and values, such as --set '{key}={{a = 1}}'",
    "model_type": "it is a table of choices, such as {key}.NAME=VALUE; `lmrec recipe` lists them",
    "int_parsing": "it should be a whole number",
    "float_parsing": "it should be a number",
    "bool_parsing": "it should be true or false",
}


def _explain(problem: Any) -> str:
    path = [str(part) for part in problem["loc"]]
    key = ".".join(path)
    if problem["type"] == "extra_forbidden":
        return f"unknown key '{key}'. {_nearest_key(path)}"
    if rule := _FORMS.get(problem["type"]):
        return f"{key} = {problem['input']!r}: {rule.format(key=key)}"
    rule = problem["msg"].removeprefix("Value error, ").replace("Input should be", "it should be")
    return f"{key} = {problem['input']!r}: {rule}" if key and problem["type"] != "value_error" else rule


def _nearest_key(path: list[str]) -> str:
    known = [key for key, _, _ in describe_keys()]
    parts = list(Recipe.model_fields)
    if path[0] not in parts:
        # A key without its table, such as `max_tokens`, is the commonest slip.
        homes = [key for key in known if key.split(".")[-1] == path[-1]]
        return f"Did you mean '{homes[0]}'?" if homes else nearest(path[0], parts)
    inside = [key for key in known if key.startswith(f"{path[0]}.")]
    return nearest(".".join(path), inside)


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(inner) for key, inner in value.items() if inner is not None}
    return value
