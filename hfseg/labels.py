"""Class names, ignore index and colours: one truth for data, loss, metric, figures and model config."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hfseg.errors import UserError, printable, shown
from hfseg.html import html_table

if TYPE_CHECKING:  # this module is read before torch is
    from transformers import PreTrainedConfig

Colour = tuple[int, int, int]
OVERLAY = 0.55  # weight of the class colour over the image, in every picture
MIN_INDEX, MAX_INDEX = -(2**31), 2**31 - 1  # labels are counted in 32 bits

# Okabe & Ito (2008), "Color universal design": eight colours that people with any colour vision can tell apart.
OKABE_ITO: tuple[Colour, ...] = (
    (230, 159, 0),
    (0, 114, 178),
    (213, 94, 0),
    (0, 158, 115),
    (204, 121, 167),
    (86, 180, 233),
    (240, 228, 66),
    (60, 60, 60),
)


def default_palette(num_colours: int) -> tuple[Colour, ...]:
    """Okabe-Ito for the first eight classes, then colours spread by the golden angle over two levels of brightness."""
    import colorsys

    palette = list(OKABE_ITO[:num_colours])
    for index in range(len(palette), num_colours):
        rgb = colorsys.hsv_to_rgb((index * 0.381966) % 1.0, 0.75, 0.95 if index % 2 else 0.6)
        palette.append((round(255 * rgb[0]), round(255 * rgb[1]), round(255 * rgb[2])))
    return tuple(palette)


@dataclass(frozen=True, init=False)
class LabelSet:
    """The classes of a segmentation task.

    Args:
        names: class names; the index in this list is the class id.
        ignore_index: label of pixels that count neither in the loss nor in the metric. If it is the id of a class,
            that class has an output of the model and a colour, but no score; to predict it is a mistake. By default
            255, of more than 255 classes 65535.
        palette: one (red, green, blue) triple of 0..255 per class; by default colours that are safe for the
            colour-blind.

    Raises:
        UserError: no names, a name twice, an ignore index of more than 32 bits, a palette of another length.

    Example:
        >>> labels = LabelSet(["pet", "background", "boundary"])
        >>> labels.num_labels, labels.id2label[2], labels.ignore_index
        (3, 'boundary', 255)
    """

    names: Sequence[str]  # all in the `repr`, which is part of the key of caches
    ignore_index: int
    palette: Sequence[Colour] | None = field(repr=False)

    def __init__(
        self, names: Sequence[str], ignore_index: int | None = None, palette: Sequence[Colour] | None = None
    ) -> None:
        object.__setattr__(self, "names", tuple(names))
        default = 255 if len(self.names) <= 255 else 65535
        object.__setattr__(self, "ignore_index", default if ignore_index is None else ignore_index)
        repeated = sorted(name for name, number in Counter(self.names).items() if number > 1)
        if not self.names or repeated:
            raise UserError(
                f"A LabelSet needs one distinct name per class; got {len(self.names)} names, "
                f"repeated={shown(repeated)}."
            )
        if not MIN_INDEX <= self.ignore_index <= MAX_INDEX:
            raise UserError(
                f"ignore_index={self.ignore_index} has more than 32 bits. The usual ones are 255 and -100."
            )
        colours = default_palette(len(self.names)) if palette is None else tuple(map(tuple, palette))
        if len(colours) != len(self.names):
            raise UserError(f"The palette has {len(colours)} colours for {len(self.names)} classes.")
        object.__setattr__(self, "palette", colours)

    @classmethod
    def of_config(cls, config: "PreTrainedConfig") -> "LabelSet":
        """The classes of a model, and what its loss ignores (`semantic_loss_ignore_index`).

        A model with one output tells one class from everything else, as stock trains it (a sigmoid per pixel): its
        classes are `background` and that one. A name that several classes have gets the class id behind it.
        """
        names = [printable(str(config.id2label[index])) for index in sorted(config.id2label)]
        names = ["background", *names] if len(names) == 1 else names
        names = [name if names.count(name) == 1 else f"{name} ({index})" for index, name in enumerate(names)]
        return cls(names, config.to_dict().get("semantic_loss_ignore_index"))

    @property
    def num_labels(self) -> int:
        return len(self.names)

    @property
    def scored(self) -> tuple[int, ...]:
        """The ids of the classes that have a score: all but the ignore index."""
        return tuple(index for index in range(len(self.names)) if index != self.ignore_index)

    @property
    def id2label(self) -> dict[int, str]:
        return dict(enumerate(self.names))

    @property
    def label2id(self) -> dict[str, int]:
        return {name: index for index, name in enumerate(self.names)}

    def _repr_html_(self) -> str:
        rows = [[str(index), name] for index, name in enumerate(self.names)]
        title = f"{self.num_labels} classes, ignore index {self.ignore_index}"
        return html_table(title, ["id", "class"], rows, self.palette or ())
