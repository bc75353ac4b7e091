"""`hfseg train`, `check`, `evaluate` and `study`: what begins with a config."""

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


def train(config: "RunConfig", resume: bool = False) -> None:
    """Trains and scores one model; in a run of a study, ends with it."""
    if config.study is not None:
        raise UserError(f"The config of {config.name} has a `study`, which is several runs: `hfseg study` makes them.")
    from hfseg.run import run
    from hfseg.study import end_with_parent

    end_with_parent()
    run(config, resume=resume)


def check(config: "RunConfig") -> None:
    """Looks at the data of a run, or of all runs of a study; UserError where it has errors."""
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
    from hfseg.run import run

    run(config, eval_only=True)


def study(config: "RunConfig", arm: str | None = None) -> None:
    """Makes the runs of a study that are left, or of one arm."""
    if config.study is None:
        raise UserError(f"The config of {config.name} has no `study`: it is one run, which `hfseg train` makes.")
    from hfseg.study import run_study

    run_study(config, arm)
