"""What a run leaves in its folder: reading it, what made it, whether it may be trained into."""

from hfseg.runs.counts import COUNTS, compare_runs, read_counts, write_counts
from hfseg.runs.examples import Example, save_examples
from hfseg.runs.facts import FILES, Facts, is_number, public_config, read_facts
from hfseg.runs.folder import PATIENCE, check_output_dir, check_same_classes, check_same_run, flatten, writing_run
from hfseg.runs.origins import DATA_SETS, citations, hub_id, is_torchvision, licence_of_weights, public_init
from hfseg.runs.provenance import Provenance, peak_memory_mb
from hfseg.runs.results import RunResults, read_history

__all__ = [
    "COUNTS",
    "DATA_SETS",
    "FILES",
    "PATIENCE",
    "Example",
    "Facts",
    "Provenance",
    "RunResults",
    "check_output_dir",
    "check_same_classes",
    "check_same_run",
    "citations",
    "compare_runs",
    "flatten",
    "hub_id",
    "is_number",
    "is_torchvision",
    "licence_of_weights",
    "peak_memory_mb",
    "public_config",
    "public_init",
    "read_counts",
    "read_facts",
    "read_history",
    "save_examples",
    "write_counts",
    "writing_run",
]
