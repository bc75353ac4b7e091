"""StudyConfig: the `study:` section, which runs are compared and what may differ between them. Imports no torch."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from hfseg.config.train_keys import nearest

SECTIONS = ("data", "model", "loss", "transforms", "optim", "eval", "train")  # what a run of a study may override
PRETRAIN = "pretrain."  # in `model.init`: the weights of one of the study's own pretraining runs
VARIES = ("model.init", "model.freeze")  # what a study always compares

Tree: TypeAlias = dict[str, Any]


def _or_empty(value: Any) -> Any:
    return {} if value is None else value


Trees = dict[str, Annotated[Tree, BeforeValidator(_or_empty)]]
Seeds = Annotated[tuple[Annotated[int, Field(ge=0, lt=2**32)], ...], Field(min_length=1)]


class StudyConfig(BaseModel):
    """Several runs compared. The tree's ordinary keys are what all arms share."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    arms: Trees = Field(min_length=1)
    """What is compared, by name: each arm says what it overrides of the shared keys.

    Its `model.init` may be `pretrain.<name>`. An arm that says `model.type` shares nothing else of `model`.
    """
    pretrain: Annotated[Trees, BeforeValidator(_or_empty)] = {}
    """Pretraining runs by name: each a config of its own, which shares nothing with the arms."""
    seeds: Seeds = (42,)
    """Each arm is trained once for each of these seeds, or for each of its own `seeds`."""
    varies: tuple[str, ...] = ()
    """Keys or sections that may differ between the arms of one model; other differences are warned of.

    `model.init` and `model.freeze` may always differ.
    """

    @model_validator(mode="after")
    def _belongs(self) -> "StudyConfig":
        problems = _names(self.arms, "arms") + _names(self.pretrain, "pretrain")
        for kind, trees, own in (("arms", self.arms, "seeds"), ("pretrain", self.pretrain, "seed")):
            for name, tree in trees.items():
                unknown = [str(key) for key in tree if key not in (*SECTIONS, own)]
                problems += [f"{kind}.{name}.{key}: unknown key.{nearest(key, (*SECTIONS, own))}" for key in unknown]
        problems += [f"pretrain.{name}.data is required" for name, tree in self.pretrain.items() if "data" not in tree]
        if len(set(self.seeds)) < len(self.seeds):
            problems.append("seeds: each seed only once")
        problems += [f"arms.{name}: {problem}" for name, tree in self.arms.items() for problem in self._arm(tree)]
        problems += [
            f"pretrain.{name}: model.init={_init(tree)!r}: a pretraining run does not begin from another one"
            for name, tree in self.pretrain.items()
            if _init(tree)
        ]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _arm(self, tree: Mapping[str, Any]) -> list[str]:
        problems = []
        seeds = tree.get("seeds", [0])
        right = isinstance(seeds, list) and all(type(seed) is int and 0 <= seed < 2**32 for seed in seeds)
        if not right or not seeds or len(set(seeds)) < len(seeds):
            problems.append(f"seeds={seeds!r} must be a list of different whole numbers")
        init = _init(tree)
        if init and init.removeprefix(PRETRAIN) not in self.pretrain:
            known = [PRETRAIN + name for name in self.pretrain]
            hint = nearest(init, known) if known else " The study has none."
            problems.append(f"model.init={init!r} is no pretraining run of this study.{hint}")
        return problems

    def seeds_of(self, arm: str) -> tuple[int, ...]:
        return tuple(self.arms[arm].get("seeds", self.seeds))


def _init(tree: Mapping[str, Any]) -> str | None:
    """`model.init`, if it refers to a pretraining run."""
    model = tree.get("model")
    init = model.get("init") if isinstance(model, Mapping) else None
    return init if isinstance(init, str) and init.startswith(PRETRAIN) else None


def _names(trees: Trees, kind: str) -> list[str]:
    """They become folders, and parts of keys on the command line."""
    wrong = [name for name in trees if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name)]
    taken = [name for name in trees if kind == "arms" and re.search(r"-seed\d+$|^pretrain-", name)]
    return [f"{kind}.{name}: a name has letters, digits, '_' and '-' only" for name in wrong] + [
        f"{kind}.{name}: a name may not end in -seed<number> or begin with pretrain-" for name in taken
    ]
