"""The label doctor and every check before the first step."""

from hfseg.doctor.check import check, check_data, check_rows, check_run_data, check_source
from hfseg.doctor.findings import Finding, Report
from hfseg.doctor.fit import check_fit
from hfseg.doctor.preflight import check_classes, check_settings, check_start, preflight

__all__ = [
    "Finding",
    "Report",
    "check",
    "check_classes",
    "check_data",
    "check_fit",
    "check_rows",
    "check_run_data",
    "check_settings",
    "check_source",
    "check_start",
    "preflight",
]
