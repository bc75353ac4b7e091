"""What a study consists of: its runs, in order, and where arms differ in more than the study declares."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hfseg.config import PRETRAIN, SECTIONS, VARIES, RunConfig, StudyConfig, nearest
from hfseg.errors import UserError
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
    runs: list[tuple[str, str | None, dict[str, Any], Any]] = [
        (f"pretrain-{name}", None, tree, tree.get("seed", 42)) for name, tree in study.pretrain.items()
    ]
    for number in range(max(len(study.seeds_of(arm)) for arm in study.arms)):
        for arm, tree in study.arms.items():
            runs += [(f"{arm}-seed{seed}", arm, tree, seed) for seed in study.seeds_of(arm)[number : number + 1]]
    jobs, problems = [], []
    for name, owner, tree, seed in runs:
        try:
            jobs.append(_job(config, study, name, owner, tree, seed))
        except UserError as error:
            problems.append(str(error))
    if problems:
        raise UserError("\n".join(dict.fromkeys(problems)))  # once, not for each seed
    return jobs


def _job(
    config: RunConfig, study: StudyConfig, name: str, arm: str | None, changes: Mapping[str, Any], seed: Any
) -> Job:
    """A run from what the study's config says of its arm (over the shared keys), or of a pretraining run."""
    source = f"study.pretrain.{name.removeprefix('pretrain-')}" if arm is None else f"study.arms.{arm}"
    # what was written, not what it resolves to: an FCN has other defaults
    shared = config.model_dump(mode="json", exclude_unset=True, include=set(SECTIONS)) if arm is not None else {}
    tree: dict[str, Any] = merge(shared, {key: value for key, value in changes.items() if key in SECTIONS})
    tree |= {"name": f"{config.name}-{name}", "seed": seed, "output_dir": str(config.output_dir / name)}
    model, needs = tree.get("model"), None
    init = model.get("init") if arm is not None and isinstance(model, Mapping) else None
    if isinstance(model, Mapping) and isinstance(init, str) and init.startswith(PRETRAIN):
        pretrained = init.removeprefix(PRETRAIN)
        if pretrained not in study.pretrain:
            hint = nearest(pretrained, study.pretrain) if study.pretrain else " The study has none."
            raise UserError(f"model.init={init!r} is no pretraining run of this study.{hint}")
        needs = f"pretrain-{pretrained}"
        tree["model"] = {**model, "init": str(config.output_dir / needs / "model")}
    run = RunConfig.from_tree(tree, source)
    return Job(name, run, arm, needs)


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The base tree with the changes in it; a `model` that says its type replaces the base's."""
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        is_other_model = key == "model" and isinstance(value, Mapping) and "type" in value
        is_deeper = isinstance(old, Mapping) and isinstance(value, Mapping) and not is_other_model
        merged[key] = merge(old, value) if is_deeper else value  # type: ignore[arg-type]
    return merged


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
    """Sentences about arms that differ from the first arm of their model in more than `model.init`, `model.freeze`
    and `varies`.
    """
    arms: dict[str, Job] = {}
    for job in jobs:
        if job.arm is not None:
            arms.setdefault(job.arm, job)
    firsts: dict[str, Job] = {}
    sentences = []
    for other in arms.values():
        one = firsts.setdefault(model_name(other.config), other)
        for key, (left, right) in differing_keys(one.config, other.config).items():
            if not is_free(key, (*VARIES, *varies)):
                sentences.append(
                    f"{other.arm} differs from {one.arm} in `{key}` ({right!r} and {left!r}), which `study.varies` "
                    "does not declare: their difference is not that of what is compared alone."
                )
    return sentences
