"""What the parsers of the subcommands have in common."""

import argparse
from collections.abc import Callable
from textwrap import dedent, indent
from typing import TypeAlias

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

OVERRIDES = (
    "change single keys of the config, such as train.max_steps=100 or 'output_dir=runs/run #2': text and paths as "
    "they are typed, everything else, such as [0.5, 2], as in YAML; null takes a value back"
)
TRUST = "run the code that comes with the model"


def add_command(
    commands: Commands, name: str, help: str, examples: str, do: Callable[[argparse.Namespace], int | None]
) -> argparse.ArgumentParser:
    """A subcommand's parser, whose help ends with the examples, a command on each line."""
    parser = commands.add_parser(
        name,
        help=help,
        description=f"{help[0].upper()}{help[1:]}.",
        epilog=f"examples:\n{indent(dedent(examples).strip(), '  ')}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(do=do, parser=parser)
    return parser


def add_config(parser: argparse.ArgumentParser, what: str) -> None:
    """The arguments CONFIG, described as `what`, and overrides."""
    parser.add_argument("config", metavar="CONFIG", help=what)
    parser.add_argument("overrides", nargs="*", metavar="key.sub=value", help=OVERRIDES)
