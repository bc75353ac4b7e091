"""Settings of `train:` that nobody looks at, as another one wins, or that do not agree."""

from collections.abc import Iterator, Mapping
from typing import Any

from hfseg.config.train_keys import TRAIN_DEFAULTS
from hfseg.errors import shown

# Schedules that look neither at the warm-up nor at their options.
NO_WARMUP = ("constant", "reduce_lr_on_plateau", "greedy")
NO_OPTIONS = ("constant", "constant_with_warmup")
# Key -> the switch without which it does nothing.
SWITCHES = {
    "hub_strategy": "push_to_hub",
    "hub_always_push": "push_to_hub",
    "gradient_checkpointing_kwargs": "gradient_checkpointing",
    "activation_checkpointing_kwargs": "activation_checkpointing",
}
CHOOSES_BEST = ("metric_for_best_model", "greater_is_better")


def ignored_settings(train: Mapping[str, Any]) -> Iterator[str]:
    """A line for each setting that loses against another, with what to type to have one or the other.

    Args:
        train: what a config says, without defaults; names and types are right.
    """
    chosen = {**TRAIN_DEFAULTS, **train}
    if train.get("num_train_epochs") is not None and chosen.get("max_steps", -1) > 0:
        yield _line(train, "num_train_epochs", f"train.max_steps={chosen['max_steps']}", "`train.max_steps=-1`")
    yield from _strategies(train, chosen)
    yield from _intervals(train, chosen)
    schedule = chosen["lr_scheduler_type"]
    setting = f"train.lr_scheduler_type={schedule}"
    if train.get("warmup_steps") and schedule in NO_WARMUP:
        yield _line(train, "warmup_steps", setting, "`train.lr_scheduler_type=constant_with_warmup`")
    if train.get("lr_scheduler_kwargs") and schedule in NO_OPTIONS:
        yield _line(train, "lr_scheduler_kwargs", setting, "`train.lr_scheduler_type=polynomial`")
    for key, switch in SWITCHES.items():
        if train.get(key) and not chosen.get(switch):
            yield _line(train, key, f"train.{switch}=false", f"`train.{switch}=true`")
    is_chosen = chosen["load_best_model_at_end"] or chosen["save_strategy"] == "best" or schedule in NO_WARMUP[1:]
    for key in CHOOSES_BEST if not is_chosen else ():
        if train.get(key) is not None:
            yield _line(train, key, "train.load_best_model_at_end=false", "`train.load_best_model_at_end=true`")


def _strategies(train: Mapping[str, Any], chosen: Mapping[str, Any]) -> Iterator[str]:
    """The best weights are chosen among those that are saved, when they are scored."""
    scored, saved = chosen["eval_strategy"], chosen["save_strategy"]
    if scored == saved or saved == "best" or not chosen["load_best_model_at_end"]:
        return
    remedies = ["`train.load_best_model_at_end=false`"]
    if scored == "steps":
        steps = train.get("eval_steps") or chosen["logging_steps"]  # as TrainingArguments does
        remedies.insert(0, f"`train.save_strategy=steps` and `train.save_steps={steps}`")
    elif scored != "no":
        remedies.insert(0, f"`train.save_strategy={scored}`")
    yield (
        f"  train.save_strategy={saved} does not go with train.eval_strategy={scored}, as the best weights are kept: "
        f"set {', or '.join(remedies)}."
    )


def _intervals(train: Mapping[str, Any], chosen: Mapping[str, Any]) -> Iterator[str]:
    """Numbers of steps beside a strategy that does not count them."""
    for kind in ("logging", "eval", "save"):
        key, strategy = f"{kind}_steps", chosen.get(f"{kind}_strategy", "steps")
        if train.get(key) and strategy not in ("steps", "no"):  # beside `no` it does no harm
            steps = train[key]
            # the best weights are chosen among those that are saved, so both go together
            both = [f"`train.{each}_strategy=steps` and `train.{each}_steps={steps}`" for each in ("eval", "save")]
            remedy = "`train.logging_strategy=steps`" if kind == "logging" else " with ".join(both)
            yield _line(train, key, f"train.{kind}_strategy={strategy}", remedy)


def _line(train: Mapping[str, Any], key: str, winner: str, remedy: str) -> str:
    setting = f"train.{key}={shown(train[key])}"
    return f"  {setting} does nothing beside {winner}: set {remedy}, or leave it out (`train.{key}=null`)."
