"""Several runs compared: scratch, pretrained and frozen, one model and another, answered with intervals."""

from hfseg.study.study import check_study, run_study

__all__ = ["check_study", "run_study"]
