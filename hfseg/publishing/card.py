"""The model card of a run, from the template `card.md.jinja`: no number in it is typed by hand."""

import re
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard

from hfseg.config import EvalConfig
from hfseg.files import dump_yaml, write_text
from hfseg.metrics import MAIN_SCORES, REQUESTED_SCORES, caveats, metric_name, score_keys, with_interval
from hfseg.publishing.card_metadata import metadata, model_input
from hfseg.reporting import escape_markdown
from hfseg.runs import DATA_SETS, RunResults, hub_id, is_torchvision, licence_of_weights, public_init

TEMPLATE = Path(__file__).with_name("card.md.jinja")


def build_card(run_dir: Path, repo: str | None = None, show_predictions: bool | None = None) -> ModelCard:
    """The card of a run, as `README.md` in the run's folder, in its copy, or in a repository of the Hub.

    Args:
        run_dir: a finished run, or a folder with copies of its files.
        repo: the Hub repository that the card is for; by default the config's `hub.repo`.
        show_predictions: whether the card has the picture of predictions, and examples for the Hub's widget, which
            show images of the data. By default only where the data is drawn by hfseg. A picture that does not exist is
            never shown.

    Raises:
        UserError: a file of the run is missing or torn; says which.
    """
    run = RunResults.read_finished(run_dir)
    config, metrics = run.run_config, run.metrics
    data_set, constant = DATA_SETS[config.data.name], metrics.get("test_constant_class")
    repo = repo or config.hub.repo
    show = data_set.is_drawn if show_predictions is None else show_predictions
    card: ModelCard = ModelCard.from_template(
        card_data=metadata(run, show),
        template_path=str(TEMPLATE),
        run=run,
        metrics=metrics,
        scores=_score_names(metrics),
        with_interval=with_interval,
        has_interval=metrics.get("test_mean_iou_low") is not None,
        caveats=[escape_markdown(sentence) for sentence in caveats(metrics)],
        constant=None if constant is None else escape_markdown(constant),
        per_class={
            prefix: [row | {"name": escape_markdown(row["name"])} for row in rows]
            for prefix, rows in run.per_class.items()
        },
        data_set=data_set,
        note=escape_markdown(config.data.note or ""),
        predictions=run.figure("predictions.png") if show else None,
        repo=repo,
        model_id=repo or f"{run.public_config['output_dir']}/model",
        model_input=model_input(config),
        eval_options=_eval_options(config.eval),
        public_config=dump_yaml(run.public_config),
        init=config.model.init and public_init(config.model.init),
        base_model=hub_id(config),
        is_torchvision=is_torchvision(config.model.init),
        licence=licence_of_weights(config),
    )
    return card


def write_card(run_dir: Path, repo: str | None = None, show_predictions: bool | None = None) -> ModelCard:
    """Writes `README.md` into a run's folder; see `build_card`."""
    card = build_card(run_dir, repo, show_predictions)
    write_text(run_dir / "README.md", str(card))
    return card


def _score_names(metrics: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Key without its split -> name, of the main scores, of those that the config asked for, and of the rest."""
    names = {key: escape_markdown(metric_name(key)) for key in score_keys(metrics)}
    requested = [key for key in names if any(re.fullmatch(pattern, key) for pattern in REQUESTED_SCORES)]
    return {
        "main": {key: name for key, name in MAIN_SCORES.items() if f"test_{key}" in metrics},
        "requested": {key: names[key] for key in requested},
        "other": {key: name for key, name in names.items() if key not in (*MAIN_SCORES, *requested)},
    }


def _eval_options(evaluation: EvalConfig) -> str:
    """The keywords of `EvalConfig` that make `predict` segment as the scores were made; empty for one plain pass."""
    if evaluation.is_plain:
        return ""
    # `predict` resizes to the processor's size, and measures nothing
    changed = evaluation.model_dump(exclude_defaults=True, exclude={"size", "boundary", "calibration"})
    return ", ".join(f"{key}={value!r}" for key, value in changed.items()).replace("'", '"')
