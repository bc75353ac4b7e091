"""The model card, which files may be published, and the push to the Hub."""

from hfseg.publishing.card import collect_cards, renew_cards
from hfseg.publishing.card_results import escape
from hfseg.publishing.pages import EXAMPLES, discard_results, missing_pages, write_pages
from hfseg.publishing.publish import publish_finished, publish_run, push

__all__ = [
    "EXAMPLES",
    "collect_cards",
    "discard_results",
    "escape",
    "missing_pages",
    "publish_finished",
    "publish_run",
    "push",
    "renew_cards",
    "write_pages",
]
