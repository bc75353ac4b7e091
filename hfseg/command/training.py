"""`hfseg train`, `check`, `evaluate` and `study`: what begins with a config."""

import sys
from typing import TYPE_CHECKING

from hfseg.command.configs import load
from hfseg.command.parsing import Commands, add_command, add_config
from hfseg.errors import UserError

if TYPE_CHECKING:
    from hfseg.config import RunConfig

ANY_CONFIG = "a config's name (`hfseg configs`), a YAML file, or a folder: of images and masks, or of a run"


def add_commands(commands: Commands) -> None:
    """Adds the parsers."""
    parser = add_command(
        commands,
        "train",
        "train a model, score it and write its page and card",
        """
        hfseg train quickstart
        hfseg train pets/segformer_b0 data.root=~/data/oxford-iiit-pet train.max_steps=1000
        hfseg train my/folder
        hfseg train runs/quickstart --resume
        """,
        lambda given: train(load(given.config, given.overrides, given.resume), given.resume),
    )
    add_config(parser, ANY_CONFIG)
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on from the run's last checkpoint; settings that change no result, such as workers, may differ",
    )
    parser = add_command(
        commands,
        "check",
        "look for mistakes in all of the data, without training",
        """
        hfseg check my/folder
        hfseg check camvid/segformer_b0 data.root=~/data/camvid
        hfseg check study/toy
        """,
        lambda given: check(load(given.config, given.overrides, trains=False)),
    )
    add_config(parser, ANY_CONFIG)
    parser = add_command(
        commands,
        "evaluate",
        "score a run's saved model again, or model.init where there is no run yet",
        """
        hfseg evaluate runs/quickstart
        hfseg evaluate pets/segformer_b0 data.root=~/data/oxford-iiit-pet model.init=me/pets
        """,
        lambda given: evaluate(load(given.config, given.overrides, trains=False)),
    )
    add_config(parser, ANY_CONFIG)
    parser = add_command(
        commands,
        "study",
        "train several models and compare them; run again, it does what is left",
        """
        hfseg study study/toy
        hfseg study study/pets data.root=~/data/oxford-iiit-pet --arm segformer-scratch
        """,
        lambda given: study(load(given.config, given.overrides), given.arm),
    )
    add_config(parser, "the name or the YAML file of a config with a `study` section")
    parser.add_argument("--arm", metavar="NAME", help="run only this arm, ARM-seedK or pretrain.NAME")


def announce(config: "RunConfig", what: str) -> None:
    """The first line, before torch is imported, which takes seconds: `what` is done on or in the data."""
    from hfseg.console import is_first_process, say

    data = config.data
    where = str(data.repo or data.root or data.name)
    if data.root is not None and data.name not in ("folder", "hub"):
        where = f"{data.name} in {data.root}"
    if is_first_process():
        say(f"{config.name}: {what} {where}, into {config.output_dir}", "bold")
        say("loads torch and looks at the data ...", "dim")


def quiet_libraries() -> None:
    """Keeps bars such as transformers' "Writing model shards" from this process's output, and any from a file."""
    import datasets
    import huggingface_hub
    from transformers.utils import logging

    logging.disable_progress_bar()
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
        huggingface_hub.utils.disable_progress_bars()


def model_of(config: "RunConfig") -> str:
    """Its kind and size."""
    return f"{config.model.type} {config.model.size}".strip()


def train(config: "RunConfig", resume: bool = False) -> None:
    """Trains and scores one model; in a run of a study, ends with it."""
    if config.study is not None:
        raise UserError(f"The config of {config.name} has a `study`, which is several runs: `hfseg study` makes them.")
    steps, epochs = (config.train.get(key) for key in ("max_steps", "num_train_epochs"))
    length = f"{steps} steps" if steps is not None and steps > 0 else f"{epochs or 3:g} epochs"  # stock's default
    start = "its last checkpoint to" if resume else f"{config.model.init or 'scratch'} for"
    announce(config, f"trains {model_of(config)} from {start} {length} on")
    from hfseg.run import run
    from hfseg.study import end_with_parent

    quiet_libraries()
    end_with_parent()
    run(config, resume=resume)


def check(config: "RunConfig") -> None:
    """Looks at the data of a run, or of all runs of a study; UserError where it has errors."""
    announce(config, "looks for mistakes in")
    quiet_libraries()
    if config.study is not None:
        from hfseg.study import check_study

        check_study(config)
    else:
        from hfseg.doctor import check as check_data_of

        check_data_of(config).raise_errors()


def evaluate(config: "RunConfig") -> None:
    """Scores one run's model again."""
    if config.study is not None:
        raise UserError("An evaluation scores one run: give it the config of a run in the study's configs/.")
    saved, init = config.output_dir / "model", config.model.init
    announce(config, f"scores {model_of(config)} from {saved if init is None or saved.is_dir() else init} on")
    from hfseg.run import run

    quiet_libraries()
    run(config, eval_only=True)


def study(config: "RunConfig", arm: str | None = None) -> None:
    """Makes the runs of a study that are left, or of one arm."""
    if config.study is None:
        raise UserError(f"The config of {config.name} has no `study`: it is one run, which `hfseg train` makes.")
    announce(config, f"trains and compares {arm or f'{len(config.study.arms)} arms'} on")
    from hfseg.study import run_study

    run_study(config, arm)
