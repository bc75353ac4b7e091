"""Benchmarks, each in processes of its own. Prints a table and writes JSON.

python scripts/bench.py memory --images 10 100 1000 --json bench_memory.json
"""

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

VERSIONS = ("torch", "transformers", "accelerate", "numpy")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    memory = commands.add_parser("memory", help="peak memory of an evaluation against the number of images")
    memory.add_argument("--images", type=int, nargs="+", default=[10, 100, 1000])
    memory.add_argument("--size", type=int, default=256, help="side of the images in pixels")
    memory.add_argument("--classes", type=int, default=19)
    memory.add_argument("--json", type=Path, help="where to write the figures")
    one = commands.add_parser("_evaluate")  # one row of `memory`, in a fresh process
    one.add_argument("--images", type=int, required=True)
    one.add_argument("--size", type=int, required=True)
    one.add_argument("--classes", type=int, required=True)
    arguments = parser.parse_args()
    if arguments.command == "_evaluate":
        print(json.dumps(evaluate_once(arguments.images, arguments.size, arguments.classes)))
    else:
        report(memory_rows(arguments.images, arguments.size, arguments.classes), arguments.json)


def memory_rows(counts: list[int], size: int, classes: int) -> list[dict[str, Any]]:
    """One row for each number of images."""
    rows = []
    for count in counts:
        words = [sys.executable, __file__, "_evaluate", "--images", count, "--size", size, "--classes", classes]
        output = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=True).stdout
        rows.append(json.loads(output.splitlines()[-1]))
    return rows


def evaluate_once(count: int, size: int, classes: int) -> dict[str, Any]:
    """Evaluates SegFormer-B0 on random images of mixed sizes; peak memory before and after, in MB."""
    import torch
    from torch.utils.data import Dataset
    from transformers import TrainingArguments

    import hfseg

    class RandomImages(Dataset[dict[str, Any]]):
        def __len__(self) -> int:
            return count

        def __getitem__(self, index: int) -> dict[str, Any]:
            generator = torch.Generator().manual_seed(index)
            shape = (size + index % 3, size + index % 5)
            labels = torch.randint(0, classes, shape, generator=generator)
            return {
                "pixel_values": torch.randn(3, size, size, generator=generator),
                "labels": labels,
                "name": str(index),
            }

    labels = hfseg.LabelSet([str(index) for index in range(classes)])
    trainer = hfseg.SegTrainer(
        model=hfseg.HfsegSegformerForSemanticSegmentation(hfseg.HfsegSegformerConfig.from_size("b0", labels)),
        args=TrainingArguments(
            tempfile.mkdtemp(), remove_unused_columns=False, batch_eval_metrics=True, disable_tqdm=True
        ),
        labels=labels,
        data_collator=hfseg.SegCollator(labels),
    )
    trainer.evaluate(torch.utils.data.Subset(RandomImages(), range(min(count, 8))))  # the first batch's workspace
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    results = trainer.evaluate(RandomImages())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "images": count,
        "peak_mb": round(peak),
        "above_first_batch_mb": round(peak - before),
        "images_per_s": round(results["eval_samples_per_second"], 1),
    }


def report(rows: list[dict[str, Any]], path: Path | None) -> None:
    """Prints a Markdown table, and writes the figures with machine and versions."""
    print("| " + " | ".join(rows[0]) + " |")
    print("|" + " ---: |" * len(rows[0]))
    for row in rows:
        print("| " + " | ".join(str(value) for value in row.values()) + " |")
    if path is not None:
        machine = {"machine": platform.machine(), "versions": {name: version(name) for name in VERSIONS}}
        path.write_text(json.dumps({"rows": rows, **machine}, indent=2) + "\n")


if __name__ == "__main__":
    main()
