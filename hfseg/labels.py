"""Class names, ignore index and colours: one truth for data, loss, metric, figures and model config."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from hfseg.errors import UserError

Colour = tuple[int, int, int]

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


@dataclass(frozen=True)
class LabelSet:
    """The classes of a segmentation task.

    Args:
        names: class names; the index in this list is the class id.
        ignore_index: label of pixels that count neither in the loss nor in the metric.
        palette: one (red, green, blue) triple of 0..255 per class; by default colours that are safe for the
            colour-blind.

    Raises:
        UserError: no names, a name twice, an ignore index that is also a class id, a palette of another length.

    Example:
        >>> labels = LabelSet(["pet", "background", "boundary"])
        >>> labels.num_labels, labels.id2label[2], labels.ignore_index
        (3, 'boundary', 255)
    """

    names: Sequence[str]
    ignore_index: int = 255
    palette: Sequence[Colour] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(self.names))
        repeated = sorted({name for name in self.names if self.names.count(name) > 1})
        if not self.names or repeated:
            raise UserError(f"A LabelSet needs one distinct name per class; got {len(self.names)} names, {repeated=}.")
        if 0 <= self.ignore_index < len(self.names):
            raise UserError(
                f"ignore_index={self.ignore_index} is also the id of class {self.names[self.ignore_index]!r}. "
                f"Choose one outside 0..{len(self.names) - 1}, for example {255 if len(self.names) <= 255 else -1}."
            )
        palette = default_palette(len(self.names)) if self.palette is None else tuple(map(tuple, self.palette))
        if len(palette) != len(self.names):
            raise UserError(f"The palette has {len(palette)} colours for {len(self.names)} classes.")
        object.__setattr__(self, "palette", palette)

    @property
    def num_labels(self) -> int:
        return len(self.names)

    @property
    def id2label(self) -> dict[int, str]:
        return dict(enumerate(self.names))

    @property
    def label2id(self) -> dict[str, int]:
        return {name: index for index, name in enumerate(self.names)}
