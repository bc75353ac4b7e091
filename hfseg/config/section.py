"""What all sections of a config have in common: strict keys, and errors that name the nearest right one."""

from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Self, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from hfseg.config.train_keys import hint
from hfseg.errors import UserError, shown

if TYPE_CHECKING:
    from pydantic._internal._model_construction import ModelMetaclass
else:
    ModelMetaclass = type(BaseModel)

MAX_PROBLEMS = 30  # that one message lists


class CheckedCall(ModelMetaclass):
    """Makes a call such as `EvalConfig(mode="slide")` raise what `Section.from_tree` raises."""

    def __call__(cls, *values: Any, **tree: Any) -> Any:
        assert issubclass(cls, Section)
        if values:
            raise UserError(
                f"{cls.__name__} takes its keys by name, such as {cls.__name__}({next(iter(cls.model_fields))}=...); "
                f"got {shown(values[0])}. A file is read by RunConfig.load(path)."
            )
        return cls.from_tree(tree, f"{cls.__name__}(...)")


class Section(BaseModel, metaclass=CheckedCall):
    """A part of the tree: unknown keys are errors, and nothing changes after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)

    @classmethod
    def from_tree(cls, tree: dict[str, Any], source: str) -> Self:
        """Checks a tree of plain values.

        Args:
            tree: key -> value.
            source: what errors call it.

        Raises:
            UserError: lists everything that is wrong at once, each with its key and, for an unknown key, the nearest
                right name.
        """
        found: Iterable[str] = ()
        section = None
        try:
            section = cls.model_validate(tree)
        except ValidationError as error:
            found = (explain(cls, item["loc"], item["type"], item["msg"], item["input"]) for item in error.errors())
        problems = list(islice(chain(found, cls.other_problems(tree)), MAX_PROBLEMS))
        if problems or section is None:
            number = f"{len(problems)} problem(s)" if len(problems) < MAX_PROBLEMS else "many problems, such as these,"
            raise UserError("\n".join([f"{source}: {number} in the config", *problems]))
        return section

    @classmethod
    def other_problems(cls, tree: dict[str, Any]) -> Iterator[str]:
        """What is wrong beside what pydantic finds, a line for each."""
        return iter(())


def explain(section: type[BaseModel], loc: tuple[int | str, ...], kind: str, message: str, value: Any) -> str:
    """One of pydantic's findings in a section, with the nearest right name for an unknown key."""
    key = ".".join(str(part) for part in loc)
    if kind == "extra_forbidden":
        above = "".join(f"{part}." for part in loc[:-1])
        return f"  {key}: unknown key.{hint(str(loc[-1]), above, _known_keys(section, loc[:-1]))}"
    if kind == "missing":
        return f"  {key}: this key is required."
    message = message.removeprefix("Value error, ")
    return f"  {key}: {message} (got {shown(value)})" if key else f"  {message}"  # the whole tree says nothing


def _known_keys(section: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    for part in loc:
        if part not in section.model_fields:  # pydantic's name for one side of a union
            continue
        kinds = (section.model_fields[part].annotation, *get_args(section.model_fields[part].annotation))
        section = next(kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel))
    return list(section.model_fields)
