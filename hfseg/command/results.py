"""`hfseg compare`: what finished runs say beside each other."""

from pathlib import Path

from hfseg.command.parsing import Commands, add_command


def add_commands(commands: Commands) -> None:
    """Adds the parser."""
    parser = add_command(
        commands,
        "compare",
        "test whether the second of two runs is better on the same test images",
        """
        hfseg compare runs/quickstart runs/longer
        """,
        lambda given: compare(given.first, given.second),
    )
    parser.add_argument("first", metavar="RUN", help="folder of a finished run")
    parser.add_argument("second", metavar="RUN", help="folder of another, on the same data")


def compare(first: str, second: str) -> None:
    """Prints mean IoU of two runs on the test images, their difference and its p-value."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from hfseg.metrics import with_interval
    from hfseg.runs import RunResults, compare_runs

    found = compare_runs(first, second)
    table = Table(title="Mean IoU on the test images, with 95 % intervals")
    table.add_column("run")
    table.add_column("mean IoU", justify="right")
    for folder in (first, second):
        table.add_row(Text(folder), with_interval(RunResults.read(Path(folder)).metrics, "test_mean_iou"))
    table.add_section()
    table.add_row("difference, second - first", f"{found.value:+.4f} [{found.low:+.4f}, {found.high:+.4f}]")
    table.add_row("p-value of no difference", f"{found.p_value:.4f}")
    Console().print(table)
