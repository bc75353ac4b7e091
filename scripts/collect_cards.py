"""Copies finished runs' cards into model_cards/ and renews its table.

python scripts/collect_cards.py runs/quickstart runs/pets-segformer-b0-cpu
"""

import sys
from pathlib import Path

from hfseg.model_card import collect_cards

if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    collect_cards(map(Path, sys.argv[1:]), Path(__file__).parent.parent / "model_cards")
