"""The test score of a run as the Hub lists it beside other models' on a data set: `.eval_results/hfseg.yaml`."""

import re
from pathlib import Path

from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

from hfseg.files import dump_yaml, write_text, writing
from hfseg.publishing.card_metadata import protocol
from hfseg.runs import RunResults

EVAL_RESULTS = ".eval_results/hfseg.yaml"
COMMIT = re.compile("[0-9a-f]{40}")


def write_eval_results(run_dir: Path) -> None:
    """Writes the mean IoU on test of a run on a data set of the Hub; other data has no id to write it for.

    Raises:
        UserError: a file of the run is missing or torn; says which.
    """
    run = RunResults.read_finished(run_dir)
    data, score = run.run_config.data, run.metrics["test_mean_iou"]
    if data.repo is None or score is None:
        return
    entry = EvalResultEntry(
        dataset_id=data.repo,
        task_id=data.subset or "default",
        value=round(score, 4),
        dataset_revision=data.revision if COMMIT.fullmatch(data.revision or "") else None,
        notes=f"mean IoU on {run.num_images('test') or 'the'} test images: {protocol(run.run_config)}",
    )
    path = run_dir / EVAL_RESULTS
    with writing(path):
        path.parent.mkdir(exist_ok=True)
    write_text(path, dump_yaml(eval_result_entries_to_yaml([entry])))
