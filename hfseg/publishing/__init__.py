"""The model card, which files of a run may be pushed, and the push to the Hub."""

from hfseg.publishing.collection import collect_cards, renew_cards
from hfseg.publishing.pages import EXAMPLES, discard_results, missing_pages, write_pages
from hfseg.publishing.push import publish_finished, push, push_run

__all__ = [
    "EXAMPLES",
    "collect_cards",
    "discard_results",
    "missing_pages",
    "publish_finished",
    "push",
    "push_run",
    "renew_cards",
    "write_pages",
]
