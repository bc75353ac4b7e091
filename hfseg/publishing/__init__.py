"""Cards of models and data sets, which files of them may be pushed, and the push to the Hub."""

from hfseg.publishing.collection import collect_cards, renew_cards
from hfseg.publishing.data_set import check_data_push, push_data
from hfseg.publishing.pages import EXAMPLES, discard_results, missing_pages, write_pages
from hfseg.publishing.push import publish_finished, push, push_run

__all__ = [
    "EXAMPLES",
    "check_data_push",
    "collect_cards",
    "discard_results",
    "missing_pages",
    "publish_finished",
    "push",
    "push_data",
    "push_run",
    "renew_cards",
    "write_pages",
]
