"""What `metrics.json` and `per_class.json` of a run hold."""

from pydantic import BaseModel, ConfigDict, FiniteFloat, model_validator

Number = int | FiniteFloat | None


class Metrics(BaseModel):
    """metrics.json: the scores that every run has, and whatever else it has measured."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Number]
    eval_mean_iou: Number
    eval_mean_accuracy: Number
    eval_pixel_accuracy: Number
    test_mean_iou: Number
    test_mean_accuracy: Number
    test_pixel_accuracy: Number
    eval_constant_class: str | None = None
    test_constant_class: str | None = None
    eval_worst_image_name: str | None = None
    test_worst_image_name: str | None = None
    eval_error: str | None = None
    test_error: str | None = None


class ClassRow(BaseModel):
    """One class of one split, as `SegMetrics.per_class` has it."""

    name: str
    iou: Number
    accuracy: Number
    dice: Number = None
    precision: Number = None
    recall: Number = None
    boundary_iou: Number = None
    pixels: int


class PerClass(BaseModel):
    """per_class.json."""

    eval: list[ClassRow]
    test: list[ClassRow]

    @model_validator(mode="after")
    def _has_the_same_classes(self) -> "PerClass":
        if not self.test or [row.name for row in self.eval] != [row.name for row in self.test]:
            raise ValueError("it does not list the same classes for eval and test")
        return self
