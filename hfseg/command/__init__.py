"""The command `hfseg`, also `python -m hfseg`: `hfseg train pets/segformer_b0 data.root=~/data/pets`.

The files of this package hold the subcommands, by what they are about: each has its parser and the function that it
calls. Functions import what is heavy themselves, after arguments and config are checked, so that help and mistakes are
said at once.

Exit codes: 0 done; 1 an exported file that does not compute what its model does; 2 something you can fix, said in one
message; 130 interrupted; anything else is a bug of hfseg.
"""

import argparse
import sys
from collections.abc import Callable, Sequence

from hfseg import __version__
from hfseg.command import configs, models, results, training
from hfseg.command.models import export, predict, push, push_dataset
from hfseg.command.output import lossy_output
from hfseg.command.training import check, evaluate, study, train
from hfseg.errors import UserError

__all__ = [
    "check",
    "evaluate",
    "exit_code",
    "export",
    "lossy_output",
    "main",
    "parse",
    "predict",
    "push",
    "push_dataset",
    "study",
    "train",
]

DESCRIPTION = "Semantic segmentation with Hugging Face parts: train, score, use and publish a model."
EPILOG = """\
`hfseg COMMAND --help` says more, with examples. The first steps:
  hfseg train quickstart                    train on drawn pets, in minutes on a CPU
  hfseg check my/folder                     look for mistakes in your own images and masks
  hfseg train my/folder                     train on them
  hfseg predict photos --model runs/folder --output predictions
"""


def main(words: Sequence[str] | None = None) -> int:
    """Does what the words say, by default those of the command line; returns the exit code."""
    with lossy_output():
        arguments = parse(words)
        return exit_code(lambda: arguments.do(arguments))


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    """The arguments, with `do`, the function of the subcommand; SystemExit where they are wrong, or help is wanted."""
    parser = argparse.ArgumentParser(
        "hfseg", description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"hfseg {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for group in (training, models, results, configs):
        group.add_commands(commands)
    arguments, late = parser.parse_known_args(words)
    if "do" not in arguments:
        parser.print_help()
        raise SystemExit(2)
    unknown = [word for word in late if word.startswith("-") or "=" not in word or "overrides" not in arguments]
    if unknown:
        arguments.parser.error(f"unknown arguments: {' '.join(unknown)}")
    if late:
        arguments.overrides += late  # that stand behind an option
    return arguments


def exit_code(do: Callable[[], int | None]) -> int:
    """Calls a function, and says in one message why it did not do what it should; returns the exit code."""
    try:
        code = do() or 0
        if "torch" in sys.modules:
            from torch import distributed

            if distributed.is_available() and distributed.is_initialized():
                distributed.destroy_process_group()  # its threads can abort a process that ends with them alive
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            "interrupted; the same command goes on with a study or predictions, --resume with a run that has a "
            "checkpoint",
            file=sys.stderr,
        )
        return 130
    return code
