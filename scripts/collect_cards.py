"""Copies finished runs' cards into model_cards/ and renews its table.

python scripts/collect_cards.py runs/quickstart runs/pets-segformer-b0-cpu
python scripts/collect_cards.py --renew      # every page anew, from the files that are there
"""

import sys
from pathlib import Path

from hfseg.errors import UserError
from hfseg.model_card import collect_cards, renew_cards

CARDS = Path(__file__).parent.parent / "model_cards"


def main(arguments: list[str]) -> int:
    """Exit codes as everywhere: 0 done, 2 something the user can fix."""
    try:
        if arguments == ["--renew"]:
            renew_cards(CARDS)
        elif arguments and not any(word.startswith("-") for word in arguments):
            collect_cards(map(Path, arguments), CARDS)
        else:
            print(__doc__, file=sys.stderr)
            return 2
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
