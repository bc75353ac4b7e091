"""Several runs that answer a question: planned, run, compared, and written down."""

from hfseg.study.process import end_with_parent
from hfseg.study.showcase import collect_study, renew_readme
from hfseg.study.study import check_study, run_study

__all__ = ["check_study", "collect_study", "end_with_parent", "renew_readme", "run_study"]
