"""What a run leaves in its folder: reading it, what made it, whether it may be trained into."""

from hfseg.runs.compare import compare_runs
from hfseg.runs.counts import COUNTS, write_counts
from hfseg.runs.examples import Example, save_examples
from hfseg.runs.folder import PATIENCE, check_output_dir, check_same_classes, check_same_run, flatten, writing_run
from hfseg.runs.origins import DATA_SETS, hub_id, is_torchvision, licence_of_weights
from hfseg.runs.private_paths import public_config, public_init
from hfseg.runs.provenance import Provenance, describe_hardware, peak_memory_mb
from hfseg.runs.results import CONFIG, REQUIRED, RunResults, read_history

__all__ = [
    "CONFIG",
    "COUNTS",
    "DATA_SETS",
    "PATIENCE",
    "REQUIRED",
    "Example",
    "Provenance",
    "RunResults",
    "check_output_dir",
    "check_same_classes",
    "check_same_run",
    "compare_runs",
    "describe_hardware",
    "flatten",
    "hub_id",
    "is_torchvision",
    "licence_of_weights",
    "peak_memory_mb",
    "public_config",
    "public_init",
    "read_history",
    "save_examples",
    "write_counts",
    "writing_run",
]
