"""What a study consists of: its runs, in order, and where arms differ in more than the study declares."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from hfseg.config import PRETRAIN, SECTIONS, VARIES, RunConfig, StudyConfig, nearest
from hfseg.errors import UserError
from hfseg.models import FCN_SIZES, SIZES
from hfseg.runs import flatten

OWN = ("name", "output_dir", "seed")  # keys that are different in every run


@dataclass(frozen=True)
class Job:
    """One run of a study.

    Attributes:
        name: `<arm>-seed<seed>` or `pretrain-<name>`, which is its folder in the study's.
        config: of the run.
        arm: what it belongs to; None for a pretraining run.
        needs: name of the pretraining run whose weights it begins from, if any.
    """

    name: str
    config: RunConfig
    arm: str | None = None
    needs: str | None = None

    @property
    def folder(self) -> Path:
        return self.config.output_dir


def plan(config: RunConfig) -> list[Job]:
    """All runs of a study in the order in which they are made: pretraining first.

    Seeds go round: every arm has its first run before any has its second, so that a study that is stopped early
    compares all of its arms.

    Raises:
        UserError: lists what is wrong with any run's config.
    """
    study = config.study
    assert study is not None
    # what was written, not what it resolves to: an FCN has other defaults
    shared = config.model_dump(mode="json", exclude_unset=True, include=set(SECTIONS))
    jobs, problems = [], []
    for name, arm, seed in _order(study):
        tree, source = _tree(study, name, arm)
        merged = merge({} if arm is None else shared, tree)
        merged |= {"name": f"{config.name}-{name}", "seed": seed, "output_dir": str(config.output_dir / name)}
        needs = _needs(merged) if arm is not None else None
        if needs is not None:
            merged["model"] = merged["model"] | {"init": str(config.output_dir / needs / "model")}
        try:
            run = RunConfig.from_tree(merged, source)
            check_size(run, source)
            check_needs(needs, study)
        except UserError as error:
            problems.append(str(error))
        else:
            jobs.append(Job(name, run, arm, needs))
    if problems:
        raise UserError("\n".join(dict.fromkeys(problems)))  # once, not for each seed
    return jobs


def _order(study: StudyConfig) -> Iterator[tuple[str, str | None, Any]]:
    """Name, arm and seed of each run."""
    for name, tree in study.pretrain.items():
        yield f"pretrain-{name}", None, tree.get("seed", 42)
    for number in range(max(len(study.seeds_of(arm)) for arm in study.arms)):
        for arm in study.arms:
            for seed in study.seeds_of(arm)[number : number + 1]:
                yield f"{arm}-seed{seed}", arm, seed


def _tree(study: StudyConfig, name: str, arm: str | None) -> tuple[dict[str, Any], str]:
    """What the study says of a run, and where."""
    pretrain = name.removeprefix("pretrain-")
    tree, source = (study.pretrain[pretrain], pretrain) if arm is None else (study.arms[arm], arm)
    return (
        {key: value for key, value in tree.items() if key in SECTIONS},
        f"study.{'pretrain' if arm is None else 'arms'}.{source}",
    )


def _needs(tree: Mapping[str, Any]) -> str | None:
    """The pretraining run that `model.init` refers to."""
    model = tree.get("model")
    init = model.get("init") if isinstance(model, Mapping) else None
    is_own = isinstance(init, str) and init.startswith(PRETRAIN)
    return f"pretrain-{str(init).removeprefix(PRETRAIN)}" if is_own else None


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The base tree with the changes in it; a `model` that says its type replaces the base's."""
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        is_other_model = key == "model" and isinstance(value, Mapping) and "type" in value
        is_deeper = isinstance(old, Mapping) and isinstance(value, Mapping) and not is_other_model
        merged[key] = merge(old, value) if is_deeper else value  # type: ignore[arg-type]
    return merged


def check_size(config: RunConfig, source: str) -> None:
    """Raises UserError for a model that would be found to be unknown only after hours of other runs."""
    sizes: Sequence[str] = {"segformer": tuple(SIZES), "fcn": FCN_SIZES}.get(config.model.type, ())
    if sizes and config.model.size not in sizes:
        raise UserError(
            f"{source}.model.size={config.model.size!r} is no size of {config.model.type}: choose one of "
            f"{', '.join(sizes)}."
        )


def check_needs(needs: str | None, study: StudyConfig) -> None:
    """Raises UserError where what all arms share begins from a pretraining run that does not exist."""
    name = (needs or "").removeprefix("pretrain-")
    if needs is not None and name not in study.pretrain:
        hint = nearest(name, study.pretrain) if study.pretrain else " The study has none."
        raise UserError(f"model.init={PRETRAIN + name!r} is no pretraining run of this study.{hint}")


def choose(jobs: Sequence[Job], wanted: str | None) -> list[Job]:
    """The runs that `--arm` names: all seeds of an arm, one run, or a pretraining run; all of them for None.

    Raises:
        UserError: there is no such arm or run.
    """
    if wanted is None:
        return list(jobs)
    name = f"pretrain-{wanted.removeprefix(PRETRAIN)}" if wanted.startswith(PRETRAIN) else wanted
    chosen = [job for job in jobs if name in (job.arm, job.name)]
    if not chosen:
        names = [*dict.fromkeys(job.arm or job.name for job in jobs), *(job.name for job in jobs if job.arm)]
        hint = nearest(name, names)
        raise UserError(f"--arm {wanted}: this study has no such arm or run.{hint} It has {', '.join(names)}.")
    return chosen


def differing_keys(first: RunConfig, second: RunConfig) -> dict[str, tuple[Any, Any]]:
    """Keys in which two runs differ, with both values; not their names, folders and seeds."""
    one, other = (flatten(config.model_dump(mode="json")) for config in (first, second))
    keys = sorted(one.keys() | other.keys())
    return {key: (one.get(key), other.get(key)) for key in keys if key not in OWN and one.get(key) != other.get(key)}


def model_name(config: RunConfig) -> str:
    """What arms of one model have in common, such as `segformer b0`."""
    return f"{config.model.type} {config.model.size}".strip() if config.model.type != "auto" else "auto"


def is_free(key: str, free: Sequence[str]) -> bool:
    """Whether a key, or a section that it belongs to, is one of those that may differ."""
    return any(key == each or key.startswith(f"{each}.") for each in free)


def undeclared(jobs: Sequence[Job], varies: Sequence[str]) -> list[str]:
    """Sentences about pairs of arms of one model that differ in more than `model.init`, `model.freeze` and `varies`.

    Only differences from the model's first arm are told: the others follow.
    """
    firsts = {job.arm: job for job in reversed(jobs) if job.arm is not None}
    arms = sorted(firsts.values(), key=jobs.index)
    said, compared = [], set()
    for one, other in combinations(arms, 2):
        if model_name(one.config) != model_name(other.config) or other.name in compared:
            continue
        compared.add(other.name)
        for key, (left, right) in differing_keys(one.config, other.config).items():
            if not is_free(key, (*VARIES, *varies)):
                said.append(
                    f"{other.arm} differs from {one.arm} in `{key}` ({right!r} and {left!r}), which `study.varies` "
                    "does not declare: their difference is not that of what is compared alone."
                )
    return said
