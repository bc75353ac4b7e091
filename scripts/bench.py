"""Benchmarks: side by side, in one process, alternating; memory in processes of its own. Prints tables, writes JSON.

python scripts/bench.py model --models b0 --json bench_model.json
python scripts/bench.py memory --images 10 100 1000 --json bench_memory.json
python scripts/bench.py data --root ~/data/oxford-iiit-pet --json bench_data.json
python scripts/bench.py eval --json bench_eval.json
python scripts/bench.py train --root ~/data/oxford-iiit-pet --json bench_train.json --figure bench_train.png
python scripts/bench.py gpu --json bench_gpu.json
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

VERSIONS = ("torch", "torchvision", "transformers", "accelerate", "numpy", "pillow", "datasets")
SEGFORMER = ("stock", "stock compiled", "ours", "ours compiled", "ours frozen")  # frozen: the encoder
FCN = ("torchvision", "ours", "ours frozen")
GPU_SECTIONS = (
    "inference", "training", "evaluation", "prediction", "profile", "constants", "compiled", "graph",
)  # fmt: skip
Row = dict[str, Any]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    model = commands.add_parser("model", help="inference and training step against stock and torchvision")
    model.add_argument("--models", nargs="+", default=["b0", "b2", "fcn"], choices=["b0", "b2", "fcn"])
    model.add_argument("--tasks", nargs="+", default=["inference", "training"], choices=["inference", "training"])
    model.add_argument("--sizes", type=int, nargs="+", default=[512], help="side of the square images")
    model.add_argument("--classes", type=int, nargs="+", default=[19])
    model.add_argument("--batch", type=int, default=1, help="images per call; training uses twice as many")
    model.add_argument("--rounds", type=int, default=9, help="timed calls of each implementation, alternating")
    model.add_argument("--dtype", default="fp32", choices=["fp32", "tf32", "bf16"], help="tf32 and bf16 want a GPU")
    model.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    model.add_argument("--json", type=Path, help="where to write the figures")
    memory = commands.add_parser("memory", help="peak memory of an evaluation against the number of images")
    memory.add_argument("--images", type=int, nargs="+", default=[10, 100, 1000])
    memory.add_argument("--size", type=int, default=256, help="side of the images in pixels")
    memory.add_argument("--classes", type=int, default=19)
    memory.add_argument("--json", type=Path, help="where to write the figures")
    data = commands.add_parser("data", help="images per second of training crops against the usual pipelines")
    data.add_argument("--root", type=Path, help="Oxford-IIIT Pet in its official layout; without it, drawn pets")
    data.add_argument("--images", type=int, default=192, help="pets in a round, at most")
    data.add_argument("--streets", type=int, default=24, help="2048x1024 PNGs to draw, all in a round")
    data.add_argument("--size", type=int, default=512, help="side of the crops")
    data.add_argument("--workers", type=int, default=2)
    data.add_argument("--rounds", type=int, default=5, help="timed passes of each implementation, alternating")
    data.add_argument("--json", type=Path, help="where to write the figures")
    evaluation = commands.add_parser("eval", help="an evaluation against transformers' example and metric packages")
    evaluation.add_argument("--images", type=int, default=200)
    evaluation.add_argument("--size", type=int, default=512, help="side of the images, a multiple of 32")
    evaluation.add_argument("--classes", type=int, default=19)
    evaluation.add_argument("--rounds", type=int, default=3, help="timed calls of each way to score, alternating")
    evaluation.add_argument("--model-rounds", type=int, default=1, help="timed evaluations of each model, alternating")
    evaluation.add_argument("--memory-images", type=int, nargs="*", default=[25, 100, 200])
    evaluation.add_argument("--json", type=Path, help="where to write the figures")
    train = commands.add_parser("train", help="mean IoU against seconds of training, beside transformers' Trainer")
    train.add_argument("--root", type=Path, help="Oxford-IIIT Pet in its official layout; without it, drawn pets")
    train.add_argument("--folder", action="store_true", help="--root holds images/, masks/ and classes.txt instead")
    train.add_argument("--size", type=int, default=256, help="side of the crops")
    train.add_argument("--eval-size", type=int, default=256, help="side that validation images are resized to")
    train.add_argument("--eval-images", type=int, default=60, help="validation images, at most")
    train.add_argument("--batch", type=int, default=8)
    train.add_argument("--steps", type=int, default=400)
    train.add_argument("--eval-steps", type=int, default=50)
    train.add_argument("--warmup-steps", type=int, default=100)
    train.add_argument("--learning-rate", type=float, default=1e-3)
    train.add_argument("--seed", type=int, default=0)
    train.add_argument("--slice", type=float, default=20, help="seconds that one trains before the other goes on")
    train.add_argument("--minutes", type=float, default=12, help="that each trains at most")
    train.add_argument("--json", type=Path, help="where to write the figures")
    train.add_argument("--figure", type=Path, help="where to draw the curves")
    gpu = commands.add_parser("gpu", help="models, evaluation and prediction on one CUDA card against stock")
    gpu.add_argument("--sections", nargs="+", choices=GPU_SECTIONS, help="which; without it, all")
    gpu.add_argument("--minutes", type=float, default=6, help="after which what is left is skipped")
    gpu.add_argument("--tiny", action="store_true", help="toy sizes, also on a CPU: to see whether it works")
    gpu.add_argument("--json", type=Path, help="where to write the figures, after each section")
    once = commands.add_parser("_once")  # one measurement in a fresh process
    once.add_argument("function", choices=["evaluation_memory", "step_memory", "eval_peak", "compile_step"])
    once.add_argument("arguments", type=json.loads)
    arguments = parser.parse_args()
    if arguments.command == "eval" and arguments.size % 32:
        parser.error(f"--size {arguments.size} is not a multiple of 32")
    return arguments


def main() -> None:
    arguments = parse_arguments()
    if arguments.command == "_once":
        print(json.dumps(globals()[arguments.function](**arguments.arguments)))
    elif arguments.command == "memory":
        keys = {"size": arguments.size, "classes": arguments.classes}
        rows = [in_fresh_process("evaluation_memory", count=n, **keys) for n in arguments.images]
        report({"rows": rows}, arguments.json)
    elif arguments.command == "data":
        from bench_data import data_rows

        report({"rows": data_rows(arguments)}, arguments.json)
    elif arguments.command == "eval":
        from bench_eval import eval_tables

        report(eval_tables(arguments), arguments.json)
    elif arguments.command == "train":
        from bench_train import train_tables

        report(train_tables(arguments), arguments.json)
    elif arguments.command == "gpu":
        from bench_gpu import gpu_tables

        report(gpu_tables(arguments, lambda tables: write_json(tables, arguments.json)), arguments.json)
    else:
        report({"rows": model_rows(arguments)}, arguments.json)


def in_fresh_process(function: str, **arguments: Any) -> Row:
    """Calls a function of this file in a process of its own: peak memory never goes down within one."""
    words = [sys.executable, __file__, "_once", function, json.dumps(arguments)]
    output = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    return json.loads(output.splitlines()[-1])


# --- model: time and memory of one step


def model_rows(arguments: argparse.Namespace) -> list[Row]:
    """Rows for every combination asked for; each implementation is compared with the first one."""
    rows = []
    for name in arguments.models:
        names: tuple[str, ...] = FCN if name == "fcn" else SEGFORMER
        names = tuple(each for each in names if not (arguments.no_compile and "compiled" in each))
        for task in arguments.tasks:
            compared = tuple(each for each in names if task == "training" or "frozen" not in each)
            for size in arguments.sizes:
                for classes in arguments.classes:
                    batch = arguments.batch * (2 if task == "training" else 1)
                    case = {"task": task, "size": size, "classes": classes, "batch": batch, "dtype": arguments.dtype}
                    rows += compare(name, compared, case, arguments.rounds)
    return rows


def compare(name: str, implementations: tuple[str, ...], case: Row, rounds: int) -> list[Row]:
    """Times the implementations in turn, round by round, and gives each one's median and ratio to the first."""
    steps = {each: make_step(name, each, **case) for each in implementations}
    times: dict[str, list[float]] = {each: [] for each in implementations}
    for number in range(rounds + 2):  # two rounds to warm up, in which compiling happens
        for each, step in steps.items():
            start = time.perf_counter()
            step()
            if number >= 2:
                times[each].append(time.perf_counter() - start)
    base = statistics.median(times[implementations[0]])
    rows = []
    for each in implementations:
        median = statistics.median(times[each])
        memory = (
            {} if "compiled" in each else in_fresh_process("step_memory", name=name, implementation=each, case=case)
        )
        rows.append(
            {
                "model": name,
                **case,
                "implementation": each,
                "median_ms": round(1000 * median, 1),
                "min_ms": round(1000 * min(times[each]), 1),
                "speed_up": round(base / median, 2),
                "peak_mb": memory.get("peak_mb", "-"),
            }
        )
        print(rows[-1], file=sys.stderr, flush=True)
    return rows


def make_step(
    name: str, implementation: str, task: str, size: int, classes: int, batch: int, dtype: str
) -> Callable[[], None]:
    """One inference, or one training step (forward, loss at full size, backward; no optimizer)."""
    import torch
    import torch.nn.functional as F

    from hfseg.models import freeze_encoder, segmentation_loss

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = dtype == "tf32"
    torch.manual_seed(0)
    model = make_model(name, implementation, classes, fuse=task == "inference").to(device)
    if "frozen" in implementation:
        freeze_encoder(model)
    call = torch.compile(model) if "compiled" in implementation else model
    pixel_values = torch.randn(batch, 3, size, size, device=device)
    labels = torch.randint(0, classes, (batch, size, size), device=device)

    def logits() -> Any:
        with torch.autocast(device, torch.bfloat16, enabled=dtype == "bf16"):
            output = call(pixel_values)
        return output["out"] if implementation == "torchvision" else output.logits

    def inference() -> None:
        with torch.no_grad():
            logits()
        synchronise(device)

    def training() -> None:
        small = logits()
        if implementation.startswith("ours"):
            loss = segmentation_loss(small, labels).mean
        else:  # as both stock models' users do
            large = F.interpolate(small.float(), size=(size, size), mode="bilinear", align_corners=False)
            loss = F.cross_entropy(large, labels, ignore_index=255)
        loss.backward()
        model.zero_grad(set_to_none=True)
        synchronise(device)

    model.train(task == "training")
    return training if task == "training" else inference


def make_model(name: str, implementation: str, classes: int, fuse: bool) -> Any:
    import torchvision
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    import hfseg

    labels = hfseg.LabelSet([str(index) for index in range(classes)])
    if implementation == "torchvision":
        return torchvision.models.segmentation.fcn_resnet50(
            weights=None, weights_backbone=None, num_classes=classes, aux_loss=True
        )
    if name == "fcn":
        model = hfseg.HfsegFCNForSemanticSegmentation(hfseg.HfsegFCNConfig(num_labels=classes))
        return model.fuse() if fuse else model
    config = hfseg.HfsegSegformerConfig.from_size(name, labels)
    if implementation.startswith("ours"):
        return hfseg.HfsegSegformerForSemanticSegmentation(config)
    stock = {key: value for key, value in config.to_dict().items() if key not in ("model_type", "architectures")}
    return SegformerForSemanticSegmentation(SegformerConfig(**stock))


def synchronise(device: str) -> None:
    import torch

    if device == "cuda":
        torch.cuda.synchronize()


def step_memory(name: str, implementation: str, case: Row) -> Row:
    """Peak memory of three steps, weights included, above what the imports take, in MB."""
    import torch

    make_model(name, implementation, classes=2, fuse=False)  # imports what is imported late
    before = peak_mb()
    step = make_step(name, implementation, **case)
    for _ in range(3):
        step()
    if torch.cuda.is_available():
        return {"peak_mb": round(torch.cuda.max_memory_allocated() / 2**20)}
    return {"peak_mb": round(peak_mb() - before)}


def peak_mb() -> float:
    """Peak resident memory of this process (`getrusage` would start from the parent's)."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


# --- memory: peak of an evaluation


def evaluation_memory(count: int, size: int, classes: int) -> Row:
    """Evaluates SegFormer-B0 on random images of mixed sizes."""
    import torch
    from torch.utils.data import Dataset, Subset
    from transformers import TrainingArguments

    import hfseg

    class RandomImages(Dataset[Row]):
        def __len__(self) -> int:
            return count

        def __getitem__(self, index: int) -> Row:
            generator = torch.Generator().manual_seed(index)
            shape = (size + index % 3, size + index % 5)
            labels = torch.randint(0, classes, shape, generator=generator)
            pixel_values = torch.randn(3, size, size, generator=generator)
            return {"pixel_values": pixel_values, "labels": labels, "name": str(index)}

    labels = hfseg.LabelSet([str(index) for index in range(classes)])
    folder = tempfile.mkdtemp()
    trainer = hfseg.SegTrainer(
        model=hfseg.HfsegSegformerForSemanticSegmentation(hfseg.HfsegSegformerConfig.from_size("b0", labels)),
        args=TrainingArguments(folder, remove_unused_columns=False, batch_eval_metrics=True, disable_tqdm=True),
        labels=labels,
        data_collator=hfseg.SegCollator(labels),
    )
    trainer.evaluate(Subset(RandomImages(), range(min(count, 8))))  # the first batch's workspace
    before = peak_mb()
    results = trainer.evaluate(RandomImages())
    return {
        "images": count,
        "peak_mb": round(peak_mb()),
        "above_first_batch_mb": round(peak_mb() - before),
        "images_per_s": round(results["eval_samples_per_second"], 1),
    }


def eval_peak(**arguments: Any) -> Row:
    """One of `bench_eval`, which imports this file."""
    from bench_eval import eval_peak

    return eval_peak(**arguments)


def compile_step(**arguments: Any) -> Row:
    """One of `bench_gpu_models`, which imports this file."""
    from bench_gpu_models import compile_step

    return compile_step(**arguments)


def report(tables: dict[str, list[Row]], path: Path | None) -> None:
    """Prints Markdown tables, and writes the figures with machine and versions."""
    for rows in filter(None, tables.values()):
        print("| " + " | ".join(rows[0]) + " |")
        print("|" + " ---: |" * len(rows[0]))
        for row in rows:
            print("| " + " | ".join(str(value) for value in row.values()) + " |")
        print()
    write_json(tables, path)


def write_json(tables: dict[str, list[Row]], path: Path | None) -> None:
    """Writes the figures with machine and versions, whole or not at all."""
    if path is None:
        return
    machine = {"machine": platform.machine(), "cores": len(os.sched_getaffinity(0))}
    versions = {name: version(name) for name in VERSIONS}
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(json.dumps({**tables, **machine, "versions": versions}, indent=2) + "\n")
    partial.replace(path)


if __name__ == "__main__":
    main()
