"""How to use the model: code that runs as it stands."""

from hfseg.runs import Facts

CLASSES = {
    "segformer": "HfsegSegformerForSemanticSegmentation",
    "fcn": "HfsegFCNForSemanticSegmentation",
}


def usage(facts: Facts) -> str:
    """Three ways: a pipeline, transformers alone, hfseg."""
    # FCN has no class in transformers: its code lies beside the weights
    trust = ", trust_remote_code=True" if facts.config.model.type == "fcn" else ""
    parts = [
        "## Use",
        f"`{facts.model_id}` is the folder that the run wrote; put your own path in its place.\n" * (not facts.repo),
        _remote_code(facts),
        "In a pipeline:",
        f"""```python
from transformers import pipeline

segment = pipeline("image-segmentation", model="{facts.model_id}"{trust})
for part in segment("image.jpg"):
    print(part["label"], part["mask"].size)
```""",
        "With transformers alone:",
        f"""```python
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForSemanticSegmentation

name = "{facts.model_id}"
processor = AutoImageProcessor.from_pretrained(name)
model = AutoModelForSemanticSegmentation.from_pretrained(name{trust})
image = Image.open("image.jpg").convert("RGB")
outputs = model(**processor(image, return_tensors="pt"))
[mask] = processor.post_process_semantic_segmentation(outputs, target_sizes=[image.size[::-1]])
```""",
        _with_hfseg(facts),
    ]
    return "\n\n".join(part.strip("\n") for part in parts if part)


def _remote_code(facts: Facts) -> str:
    if facts.config.model.type != "fcn":
        return ""
    return (
        "transformers has no FCN, so the model's code lies beside its weights: `trust_remote_code=True` runs it. "
        "Where hfseg is installed and imported, it is not needed."
    )


def _with_hfseg(facts: Facts) -> str:
    evaluation = facts.config.eval
    way = "With hfseg, the same function, faster:" if facts.config.model.type == "segformer" else "With hfseg:"
    options, imports = "", []
    if evaluation.mode == "slide" or not evaluation.is_plain:
        way = "With hfseg, which segments as the scores below were made; the two ways above make one plain pass:"
        imports.append("from hfseg.config import EvalConfig")
        # what it measures means nothing for `predict`, which resizes to the processor's size
        changed = evaluation.model_dump(exclude_defaults=True, exclude={"size", "boundary", "calibration"})
        words = ", ".join(f"{key}={value!r}" for key, value in changed.items()).replace("'", '"')
        options = f", eval=EvalConfig({words})"
    loader = CLASSES.get(facts.config.model.type)
    if loader is None:
        loader = "AutoModelForSemanticSegmentation"
        imports = ["from hfseg import predict", *imports, f"from transformers import {loader}"]
    else:
        imports.insert(0, f"from hfseg import {loader}, predict")
    code = "\n".join(
        [
            *imports,
            "",
            f'model = {loader}.from_pretrained("{facts.model_id}")',
            "# class ids, at the image's own size",
            f'[mask] = predict(model, "image.jpg"{options})',
        ]
    )
    return f"{way}\n\n```python\n{code}\n```"
