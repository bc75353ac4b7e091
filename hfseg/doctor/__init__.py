"""The label doctor and every check before the first step."""

from hfseg.doctor.check import check_data, check_rows, check_run_data, check_source
from hfseg.doctor.draw import check
from hfseg.doctor.findings import Finding, Report
from hfseg.doctor.preflight import check_evaluated_sizes, check_labelled, check_training_batches

__all__ = [
    "Finding",
    "Report",
    "check",
    "check_data",
    "check_evaluated_sizes",
    "check_labelled",
    "check_rows",
    "check_run_data",
    "check_source",
    "check_training_batches",
]
