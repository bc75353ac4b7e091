"""The model card, written from a run's files: nothing in it is typed by hand."""

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from hfseg.scores import with_interval

DATA_SETS = {
    "oxford_pet": ("Oxford-IIIT Pet layout", "CC BY-SA 4.0 (Parkhi et al., 2012)"),
    "cityscapes": ("Cityscapes layout, official val", "Cityscapes terms of use, non-commercial (Cordts et al., 2016)"),
    "folder": ("own images and masks", "the data's own"),
    "hub": ("a data set of the Hub", "the data's own"),
    "synthetic_pet": ("hfseg synthetic pets (drawn)", "made by hfseg"),
    "synthetic_cityscapes": ("hfseg synthetic streets (drawn)", "made by hfseg"),
}
PROTOCOL = (
    "Mean IoU is the data-set mean IoU of mmseg, cityscapesScripts and `evaluate`: one confusion matrix over all "
    "valid pixels at the labels' native size, IoU per class, mean over classes. The checkpoint was chosen on "
    "validation; the test split was scored once. Brackets hold the 95 % bootstrap interval over images."
)


def write_card(run_dir: Path, note: str | None = None) -> ModelCard:
    """Writes `README.md` into a run's folder, from its metrics, config and provenance.

    Args:
        run_dir: a finished run.
        note: a sentence under the title, such as which part of a data set was used.

    Returns:
        The card.
    """
    metrics = json.loads((run_dir / "metrics.json").read_text())
    per_class = json.loads((run_dir / "per_class.json").read_text())
    provenance = json.loads((run_dir / "provenance.json").read_text())
    config = yaml.safe_load((run_dir / "run_config.yaml").read_text())
    config["data"]["root"] = "<root>" if config["data"]["root"] else None
    config["data"]["classes"] = Path(config["data"]["classes"]).name if config["data"].get("classes") else None
    config["output_dir"] = Path(config["output_dir"]).name
    init = config["model"]["init"]
    is_local = bool(init) and Path(init).expanduser().exists()
    if is_local:
        config["model"]["init"] = Path(init).name  # a path of this machine says nothing elsewhere
    base_model = init if init and init.count("/") == 1 and not is_local else None
    note = note if note is not None else config["data"]["note"]
    sections = [
        f"# {config['name']}",
        _summary(config, provenance, note),
        _usage(config),
        _results(metrics, per_class),
        _training(config, provenance),
        _limits(config),
    ]
    card = ModelCard(
        f"---\n{_metadata(config, metrics, base_model).to_yaml()}\n---\n\n" + "\n\n".join(sections) + "\n"
    )
    partial = run_dir / "README.md.partial"
    card.save(partial)
    partial.replace(run_dir / "README.md")
    return card


def _metadata(config: dict[str, Any], metrics: dict[str, Any], base_model: str | None) -> ModelCardData:
    data_set, _ = DATA_SETS[config["data"]["name"]]
    results = [
        EvalResult(
            task_type="image-segmentation",
            dataset_type=config["data"]["name"],
            dataset_name=config["data"]["note"] or data_set,
            dataset_split="test",
            metric_type="mean_iou",
            metric_name="mean IoU (native size, one confusion matrix)",
            metric_value=round(metrics["test_mean_iou"], 4),
        )
    ]
    return ModelCardData(
        model_name=config["name"],
        pipeline_tag="image-segmentation",
        library_name="transformers",
        license="apache-2.0",
        base_model=base_model,
        tags=["semantic-segmentation", "hfseg", config["model"]["type"]],
        eval_results=results,
    )


def _summary(config: dict[str, Any], provenance: dict[str, Any], note: str | None) -> str:
    start = f"from `{config['model']['init']}`" if config["model"]["init"] else "from scratch"
    family = {"segformer": "SegFormer-", "fcn": "FCN-"}.get(config["model"]["type"])
    network = family + config["model"]["size"].upper() if family else "A model of transformers"
    text = (
        f"{network} ({provenance['num_parameters']:,} parameters), trained {start} "
        f"on {DATA_SETS[config['data']['name']][0]} with hfseg {provenance['versions']['hfseg']}."
    )
    return f"{text}\n\n**{note}**" if note else text


def _usage(config: dict[str, Any]) -> str:
    # FCN has no class in transformers: its code lies beside the weights
    trust = ", trust_remote_code=True" if config["model"]["type"] == "fcn" else ""
    return f"""## Use

```python
from transformers import pipeline

segment = pipeline("image-segmentation", model="{config["name"]}"{trust})  # or this card's folder
for part in segment("image.jpg"):
    print(part["label"], part["mask"].size)
```"""


def _results(metrics: dict[str, Any], per_class: dict[str, Any]) -> str:
    lines = ["## Results", "", PROTOCOL, "", "| | validation | test |", "| --- | ---: | ---: |"]
    lines += [
        f"| {name} | {with_interval(metrics, 'eval_' + key)} | {with_interval(metrics, 'test_' + key)} |"
        for name, key in (
            ("**mean IoU**", "mean_iou"),
            ("pixel accuracy", "pixel_accuracy"),
            ("mean accuracy", "mean_accuracy"),
            ("cross-entropy", "loss"),
            (f"mean IoU of {metrics['test_constant_class']!r} everywhere", "constant_mean_iou"),
        )
    ]
    lines += [
        f"| IoU {row['name']} | {_number(row['iou'])} | {_number(test['iou'])} |"
        for row, test in zip(per_class["eval"], per_class["test"], strict=True)
    ]
    return "\n".join(lines)


def _training(config: dict[str, Any], provenance: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in provenance["versions"].items())
    seconds = provenance["train_seconds"]
    time = "not recorded" if seconds is None else f"{seconds / 60:.1f} minutes, evaluations included"
    if provenance["resumed_from"] is not None:
        time += f", since it was resumed from {provenance['resumed_from']}"
    shown = yaml.safe_dump(config, sort_keys=False).rstrip()
    return f"""## Training

```
{provenance["command"]}
```

* time: {time}; steps: {provenance["steps"]}, best checkpoint at step {provenance["best_step"]}
* hardware: {provenance["hardware"]}
* versions: {versions}

<details><summary>The whole configuration</summary>

```yaml
{shown}
```

</details>"""


def _limits(config: dict[str, Any]) -> str:
    _, licence = DATA_SETS[config["data"]["name"]]
    return f"""## Limits and licences

The model knows the classes and the kind of pictures it was trained on, nothing else. Data: {licence}.
Weights: Apache-2.0, as far as the data's licence allows."""


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def collect_cards(run_dirs: Iterable[Path], folder: Path) -> None:
    """Copies runs' cards with the files behind their numbers, and writes the table of all cards in the folder.

    Pictures of predictions are taken along only where the data is drawn; others' images stay where they are.

    Args:
        run_dirs: finished runs.
        folder: where the cards are kept, one folder for each run's name.
    """
    for run_dir in run_dirs:
        config = yaml.safe_load((run_dir / "run_config.yaml").read_text())
        target = folder / config["name"]
        target.mkdir(parents=True, exist_ok=True)
        files = [
            "README.md",
            "metrics.json",
            "per_class.json",
            "provenance.json",
            "history.jsonl",
            "figures/curves.png",
        ]
        if config["data"]["name"].startswith("synthetic_"):
            files.append("figures/predictions.png")
        for file in files:
            shutil.copyfile(run_dir / file, target / Path(file).name)
    rows = [
        "# Results",
        "",
        PROTOCOL + " Made by `python scripts/collect_cards.py RUN_DIR ...`.",
        "",
        "| card | data | mean IoU, test | validation | constant answer, test | minutes | hardware |",
        "| --- | --- | ---: | ---: | ---: | ---: | --- |",
    ]
    for card in sorted(path.parent for path in folder.glob("*/metrics.json")):
        metrics = json.loads((card / "metrics.json").read_text())
        provenance = json.loads((card / "provenance.json").read_text())
        scores = [with_interval(metrics, key) for key in ("test_mean_iou", "eval_mean_iou", "test_constant_mean_iou")]
        minutes = "-" if provenance["train_seconds"] is None else f"{provenance['train_seconds'] / 60:.1f}"
        data = ModelCard.load(card / "README.md").data.eval_results[0].dataset_name
        cells = [f"[{card.name}]({card.name}/README.md)", data, *scores, minutes, provenance["hardware"]]
        rows.append("| " + " | ".join(cells) + " |")
    (folder / "README.md").write_text("\n".join(rows) + "\n")
