"""The card's words: what the model is, how it was made, what it is not, whose work it rests on."""

from hfseg.config import ModelConfig
from hfseg.files import dump_yaml
from hfseg.metrics import caveats
from hfseg.publishing.card_results import escape, folded
from hfseg.runs import Facts, citations, hub_id, is_number, is_torchvision, licence_of_weights, public_init

MANY_CLASSES = 12


def network(facts: Facts) -> str:
    """The model's name with its article."""
    model = facts.config.model
    if model.type == "segformer":
        return f"a SegFormer-{model.size.upper()}"
    if model.type == "fcn":
        return f"an FCN-{model.size.replace('resnet', 'ResNet')}"
    return "a segmentation model of transformers"


def summary(facts: Facts) -> str:
    """What to be careful about, what it does, how it came about, how good it is."""
    names = [row.name for row in facts.per_class.test]
    classes = f"{len(names)} classes" + (f" ({', '.join(map(escape, names))})" if len(names) <= MANY_CLASSES else "")
    parts = [
        *(f"> **{escape(said)}**" for said in caveats(facts.metrics)),
        f"This is {network(facts)} with {in_millions(facts.origin.num_parameters)} parameters. "
        f"It gives every pixel of a picture one of {classes}. {history(facts)}",
        verdict(facts),
    ]
    if facts.data_set.is_drawn:
        parts.append(f"> {facts.data_set.limits}")
    if facts.config.data.note:
        parts.append(f"> The data: {escape(facts.config.data.note).rstrip('.')}. The scores are scores on this.")
    return "\n\n".join(parts)


def history(facts: Facts) -> str:
    """Where the weights come from."""
    init = facts.config.model.init
    start = f"from `{public_init(init)}`" if init else "from scratch"
    data = f"`{facts.config.data.repo}`" if facts.config.data.repo else facts.data_set.title
    if not facts.origin.steps:
        return f"Its weights come {start} and were scored on {data} as they are."
    time = f", in {duration(facts)}" if duration(facts) else ""
    return f"It was trained {start} on {data}: {facts.origin.steps:,} steps{time} on {facts.origin.hardware}."


def verdict(facts: Facts) -> str:
    """The score on test, beside the best constant answer and the weakest class."""
    metrics = facts.metrics
    score, constant = metrics["test_mean_iou"], metrics.get("test_constant_mean_iou")
    if not is_number(score):
        return "It has no mean IoU on test: the test split could not be scored."
    low, high = metrics.get("test_mean_iou_low"), metrics.get("test_mean_iou_high")
    interval = f" (95 % interval {low:.3f} to {high:.3f})" if is_number(low) and is_number(high) else ""
    count = facts.num_images("test")
    images = f"{count:,} test images" if count else "the test images"
    text = f"On {images} its mean IoU is **{score:.3f}**{interval}"
    if is_number(constant):
        name = escape(str(metrics["test_constant_class"]))
        text += f"; answering *{name}* everywhere would score {constant:.3f}"
    scored = [row for row in facts.per_class.test if row.iou is not None]
    weakest = min(scored, key=lambda row: row.iou or 0.0, default=None)
    return text + (f". Its weakest class is *{escape(weakest.name)}* with {weakest.iou:.3f}." if weakest else ".")


def predictions(facts: Facts) -> str:
    """The picture of predictions with its caption, or nothing."""
    path = facts.picture("predictions.png")
    if path is None:
        return ""
    return (
        f"![Validation images beside their true and their predicted classes]({path})\n\n"
        "<sub>Validation images that the training has not seen: the picture, the truth, the prediction.</sub>"
    )


def training(facts: Facts) -> str:
    """How the weights were made."""
    origin = facts.origin
    init = facts.config.model.init
    rows = [("Start", f"`{public_init(init)}`" if init else "from scratch")]
    if facts.config.model.freeze != "none":
        rows.append(("Frozen", frozen(facts.config.model)))
    if origin.steps:
        best = f"the best on validation, step {facts.best_step:,}" if facts.best_step else "the last"
        resumed = f"; resumed from {origin.resumed_from}" if origin.resumed_from else ""
        rows.append(("Steps", f"{origin.steps:,}; kept: {best}"))
        rows.append(("Time", f"{duration(facts) or 'not recorded'}, evaluations included{resumed}"))
    rows.append(("Hardware", origin.hardware))
    rows.append(("Software", ", ".join(f"{name} {version}" for name, version in origin.versions.items())))
    curves = facts.picture("curves.png")
    parts = ["## Training" if origin.steps else "## Where the scores come from"]
    parts.append("\n".join(f"* **{name}:** {value}" for name, value in rows))
    if curves:
        parts.append(f"![Loss and mean IoU over the training steps]({curves})")
        parts.append("<sub>Loss and mean IoU over the training steps.</sub>")
    parts.append(f"The command:\n\n```bash\n{origin.command}\n```")
    shown = dump_yaml(facts.shown).rstrip()
    parts.append(folded("The whole configuration", f"```yaml\n{shown}\n```", True))
    return "\n\n".join(parts)


def frozen(model: ModelConfig) -> str:
    """What of the encoder was not trained, and for how long."""
    stages = model.num_frozen_stages
    part = "the encoder" if stages is None else f"the first {stages} stages of the encoder"
    return part + (f", for {model.unfreeze_at:,} steps" if model.unfreeze_at else "")


def reproduce(facts: Facts) -> str:
    """The command that makes the same run from the file beside the card."""
    words = ["python scripts/run_seg.py --config run_config.yaml output_dir=runs/again"]
    if facts.config.data.root:
        words.append("data.root=FOLDER_OF_THE_DATA")
    if str(facts.shown["model"].get("init") or "").startswith("./"):
        words.append("model.init=FOLDER_OF_THE_FIRST_WEIGHTS")
    if not facts.origin.steps:
        words.append("--eval-only")
    version = facts.origin.versions.get("hfseg")
    return (
        f"## Reproduce it\n\nWith hfseg {version} and the `run_config.yaml` that lies beside this card:\n\n"
        f"```bash\n{' '.join(words)}\n```"
    )


def limits(facts: Facts) -> str:
    """What not to trust it with, and whose terms hold."""
    licence = licence_of_weights(facts.config)
    link = f" Read [its text]({licence.link})." if licence.link else ""
    unknown = " Its owner should name one here." if licence.id == "unknown" else ""
    return (
        f"## Limits and licences\n\n"
        f"* **Limits.** {facts.data_set.limits} Whatever it sees becomes one of the classes above, even what is none "
        "of them. The scores hold for pictures like those of the test split.\n"
        f"* **Weights.** {licence.reason}{link}{unknown}\n"
        f"* **Data.** {facts.data_set.licence}"
    )


def cite(facts: Facts) -> str:
    """The papers to cite."""
    papers = citations(facts.config)
    base_model = hub_id(facts.config)
    start = f"The weights started from `{base_model}`: cite what its card names.\n\n" if base_model else ""
    if is_torchvision(facts.config.model.init):
        start = f"The weights started from torchvision's `{facts.config.model.init}`.\n\n"
    if not papers:
        return f"## Cite\n\n{start or 'Cite the papers of the model and of the data.'}".rstrip()
    body = "\n\n".join(papers)
    return f"## Cite\n\n{start}The model's and the data's papers:\n\n```bibtex\n{body}\n```"


def in_millions(count: int) -> str:
    return f"{count / 1e6:.1f} million" if count >= 1e6 else f"{count:,}"


def duration(facts: Facts) -> str:
    """The training time in words, or nothing where it is not known."""
    seconds = facts.origin.train_seconds
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.1f} seconds"
    return f"{seconds / 3600:.1f} hours" if seconds >= 2 * 3600 else f"{seconds / 60:.1f} minutes"
