"""Copies finished runs' cards into model_cards/, and renews its table and the README's results.

python scripts/collect_cards.py runs/quickstart runs/pets-segformer-b0-cpu
python scripts/collect_cards.py --study runs/study-small    # its answer, and one card for each arm
python scripts/collect_cards.py --renew                     # every page anew, from the files that are there
"""

import sys
from pathlib import Path

from hfseg.errors import UserError
from hfseg.publishing import collect_cards, renew_cards
from hfseg.study import collect_study, renew_readme

REPOSITORY = Path(__file__).parent.parent
CARDS = REPOSITORY / "model_cards"


def main(arguments: list[str]) -> int:
    """Exit codes as everywhere: 0 done, 2 something the user can fix."""
    try:
        match arguments:
            case ["--renew"]:
                renew_cards(CARDS)
            case ["--study", folder]:
                collect_study(Path(folder), CARDS)
            case [first, *_] if not first.startswith("-"):
                collect_cards(map(Path, arguments), CARDS)
            case _:
                print(__doc__, file=sys.stderr)
                return 2
        renew_readme(REPOSITORY / "README.md", CARDS)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
