"""The label doctor's findings, and its report."""

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.table import Table
from rich.text import Text

from hfseg.errors import UserError, printable
from hfseg.files import write_json
from hfseg.html import html_table
from hfseg.labels import LabelSet

MAX_LINES = 8  # files named for each fault when printed; check.json has them all
Severity: TypeAlias = Literal["error", "warning"]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: where, what, and what to do about it. Errors keep a training from starting."""

    severity: Severity
    fault: str
    files: tuple[str, ...]
    what: str
    remedy: str


@dataclass(frozen=True)
class Tile:
    """A sample for the contact sheet, reduced; `image` and `ids` (H, W) are None where they cannot be read."""

    name: str
    split: str
    image: Image.Image | None
    ids: NDArray[np.integer] | None
    faults: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """What a check found.

    Attributes:
        name: the data set, as in `data.name`.
        root: its folder; empty for rows that have none.
        labels: the classes.
        num_samples: samples of each split.
        num_checked: samples that were read; fewer than there are in a quick check.
        pixels: split -> (K + 1,) pixels of each class, ignored ones last.
        images: split -> (K + 1,) masks that hold each class, or ignored pixels.
        findings: errors first.
        tiles: for the contact sheet, flagged samples first.
    """

    name: str
    root: str
    labels: LabelSet
    num_samples: dict[str, int]
    num_checked: int
    pixels: dict[str, NDArray[np.int64]]
    images: dict[str, NDArray[np.int64]]
    findings: Sequence[Finding]
    tiles: Sequence[Tile] = field(default=(), repr=False)

    @property
    def errors(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.severity == "error"]

    @property
    def warnings(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.severity == "warning"]

    @property
    def class_names(self) -> list[str]:
        return [*self.labels.names, f"ignored ({self.labels.ignore_index})"]

    def shares(self, split: str) -> NDArray[np.float64]:
        """Shares (K + 1,) of the pixels of a split: each class of the counted ones, ignored ones of all."""
        pixels = self.pixels[split]
        valid = max(int(pixels[:-1].sum()), 1)
        return np.append(pixels[:-1] / valid, pixels[-1] / max(int(pixels.sum()), 1))

    def as_dict(self) -> dict[str, Any]:
        """Everything but the tiles, for `check.json`."""
        classes = {
            split: [
                {"name": name, "pixels": int(pixels), "share": float(share), "images": int(images)}
                for name, pixels, share, images in zip(
                    self.class_names, self.pixels[split], self.shares(split), self.images[split], strict=True
                )
            ]
            for split in self.pixels
        }
        return {
            "data": self.name,
            "root": self.root,
            "num_samples": self.num_samples,
            "num_checked": self.num_checked,
            "num_errors": len(self.errors),
            "num_warnings": len(self.warnings),
            "classes": classes,
            "findings": [asdict(finding) for finding in self.findings],
        }

    @property
    def summary(self) -> str:
        counts = (len(self.errors), "error"), (len(self.warnings), "warning")
        found = ", ".join(f"{count} {word}{'' if count == 1 else 's'}" for count, word in counts)
        return f"{self.num_checked} samples checked: {found}"

    def __repr__(self) -> str:
        return f"Report({self.name}: {self.summary})"

    def _repr_html_(self) -> str:
        """The classes' shares of the pixels, then the findings, of which at most a few of each fault."""
        splits = list(self.pixels)
        shares = [
            [name, *(f"{100 * self.shares(split)[index]:.2f} %" for split in splits)]
            for index, name in enumerate(self.class_names)
        ]
        head = ["share of the pixels", *(f"{split} ({self.num_samples[split]})" for split in splits)]
        tables = html_table(f"{self.name}: {self.summary}", head, shares, self.labels.palette or ())
        if not self.findings:
            return tables
        shown = [
            [f"{found[0].severity}: {found[0].fault}", describe(each, self.root), each.remedy]
            for found in self.groups()
            for each in found[:MAX_LINES]
        ]
        title = f"Findings, at most {MAX_LINES} of each fault; check.json has all"
        return tables + html_table(title, ["fault", "what", "remedy"], shown)

    def groups(self) -> list[list[Finding]]:
        """The findings by severity, fault and remedy."""
        groups: dict[tuple[str, str, str], list[Finding]] = defaultdict(list)
        for finding in self.findings:
            groups[finding.severity, finding.fault, finding.remedy].append(finding)
        return list(groups.values())

    def save(self, path: Path) -> None:
        """Writes `as_dict` as JSON."""
        write_json(path, self.as_dict())

    def raise_errors(self) -> None:
        """Raises UserError with the first error and its remedy, if there are errors."""
        if self.errors:
            first = self.errors[0]
            more = f" ({len(self.errors) - 1} more; --check lists them all)" if len(self.errors) > 1 else ""
            raise UserError(f"The data is not fit for training: {describe(first)}. {first.remedy}{more}")

    def print(self, console: Console) -> None:
        """The classes' shares of the pixels, then the findings."""
        table = Table(title=f"{self.name}: share of the pixels, in %")
        table.add_column("class")
        for split in self.pixels:
            table.add_column(f"{split} ({self.num_samples[split]})", justify="right")
        for index, name in enumerate(self.class_names):
            if index == self.labels.num_labels:
                table.add_section()
            # brackets are no markup, and control characters nothing that a terminal acts on
            table.add_row(Text(printable(name)), *(f"{100 * self.shares(split)[index]:.2f}" for split in self.pixels))
        console.print(table)
        self.print_findings(console)
        console.print(self.summary, highlight=False)

    def print_findings(self, console: Console) -> None:
        """Grouped by fault, each with its remedy; names at most a few files of each."""
        for findings in self.groups():
            severity, fault, remedy = findings[0].severity, findings[0].fault, findings[0].remedy
            lines = [f"{severity}: {fault}" + (f" ({len(findings)})" if len(findings) > 1 else "")]
            lines += [f"    {describe(finding, self.root)}" for finding in findings[:MAX_LINES]]
            if len(findings) > MAX_LINES:
                lines.append(f"    ... and {len(findings) - MAX_LINES} more")
            lines.append(f"  -> {remedy}")
            style = "red" if severity == "error" else "yellow"
            console.print(lines[0], style=style, markup=False, highlight=False)
            console.print("\n".join(lines[1:]), markup=False, highlight=False, soft_wrap=True)


def describe(finding: Finding, root: str = "") -> str:
    """The files, at most three, and what is wrong with them; paths from `root` on."""
    files = ", ".join(finding.files[:3])
    more = f" and {len(finding.files) - 3} more" if len(finding.files) > 3 else ""
    text = f"{files}{more}: {finding.what}" if files else finding.what
    return printable(text.replace(f"{root}{os.sep}", "") if root else text)
