"""`hfseg configs`, and the config that a command names."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hfseg.command.parsing import Commands, add_command
from hfseg.command.shipped import SUFFIX, shipped
from hfseg.errors import UserError, shown

if TYPE_CHECKING:
    from hfseg.config import RunConfig


def add_commands(commands: Commands) -> None:
    """Adds the parsers."""
    parser = add_command(
        commands,
        "configs",
        "list the configs that come with hfseg, or show one",
        """
        hfseg configs
        hfseg configs show pets/segformer_b0
        hfseg configs show pets/segformer_b0 > mine.yaml
        """,
        lambda _: list_configs(),
    )
    show = parser.add_subparsers(metavar="show NAME").add_parser("show", help="print a config")
    show.add_argument("name", metavar="NAME", help="as `hfseg configs` lists it")
    show.set_defaults(do=lambda given: print(find(given.name).read_text(encoding="utf-8"), end=""), parser=show)


def list_configs() -> None:
    """Prints the name of each config, and the first line of the comment that it begins with."""
    configs = shipped()
    width = max(map(len, configs))
    for name, path in configs.items():
        first = path.read_text(encoding="utf-8").partition("\n")[0]
        print(f"{name:{width}}  {first.lstrip('# ')}")


def find(name: str) -> Path:
    """The file of a config: a file here, one that comes with hfseg, or a run's; or a folder that has none.

    Raises:
        UserError: there is none of these; says the nearest name.
    """
    path, configs = os.path.expanduser(name), shipped()
    if os.path.isfile(path):  # unlike pathlib's, false for what no file can be called
        return Path(path)
    key = name.removeprefix("configs/").removesuffix(SUFFIX)
    if key in configs:
        return configs[key]
    if os.path.isdir(path):
        saved = Path(path) / "run_config.yaml"
        return saved if saved.is_file() else Path(path)
    from hfseg.config import nearest

    raise UserError(
        f"There is no config {shown(name)}: it is neither a file or a folder here, nor a config that comes with "
        f"hfseg, which `hfseg configs` lists.{nearest(key, configs)}"
    )


def load(name: str, overrides: Sequence[str], resume: bool = False, trains: bool = True) -> "RunConfig":
    """The config that a command names, with its overrides; for a folder of images and masks, one is made.

    Args:
        name: see `find`.
        overrides: as `key.sub=value`.
        resume: go on with the run that a folder's training began.
        trains: look for weights to begin with for a folder.

    Raises:
        UserError: there is no such config, or it is wrong.
    """
    path = find(name)
    if path.is_dir():
        print(f"{path}: looks at its layout and classes ...", flush=True)  # torch takes seconds to import
        from hfseg.command.own_data import folder_config

        return folder_config(path, overrides, resume, trains)
    from hfseg.config import RunConfig

    return RunConfig.load(path, overrides)
