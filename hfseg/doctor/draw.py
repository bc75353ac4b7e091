"""check(config): look at all of the data, print what is wrong, write it down and draw it."""

from rich.console import Console

from hfseg.config import RunConfig
from hfseg.doctor.check import check_run_data
from hfseg.doctor.contact_sheet import plot_class_distribution, plot_contact_sheet
from hfseg.doctor.findings import Report
from hfseg.files import writing


def check(config: RunConfig) -> Report:
    """Looks for mistakes in the data set of a run; writes into `output_dir`/check.

    Args:
        config: the run; only its data and its folder matter.

    Returns:
        The report; its `raise_errors` stops where a training could not start.

    Raises:
        UserError: there is no data to look at, or the folder cannot be written.
    """
    folder = config.output_dir / "check"
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    report = check_run_data(config.data)
    report.save(folder / "check.json")
    shares = {split: report.shares(split) for split in report.pixels}
    plot_class_distribution(shares, report.class_names, report.labels, folder / "class_distribution.png")
    plot_contact_sheet(report.tiles, report.labels, f"{report.name}: {report.summary}", folder / "check.png")
    console = Console()
    report.print(console)
    console.print(f"{folder}: check.json, check.png, class_distribution.png", highlight=False, soft_wrap=True)
    return report
