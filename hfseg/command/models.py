"""`hfseg predict`, `export` and `push`: what begins with a trained model."""

import argparse
import re
import sys
from collections.abc import Sequence

from hfseg.command.configs import load
from hfseg.command.parsing import TRUST, Commands, add_command

OVERRIDE = re.compile(r"(eval|data)\.\w+=")
MODEL = "a run, a model's folder or a Hub id"


def add_commands(commands: Commands) -> None:
    """Adds the parsers."""
    parser = add_command(
        commands,
        "predict",
        "segment images: write masks, overlays and the share of each class",
        """
        hfseg predict photos --model runs/quickstart --output predictions
        hfseg predict street.jpg --model nvidia/segformer-b0-finetuned-ade-512-512 --output predictions
        hfseg predict 'street/**/*.png' --model me/name --output out eval.mode=slide eval.crop=512 eval.stride=384
        """,
        _predict,
    )
    parser.usage = "hfseg predict IMAGES... --model MODEL --output DIR [eval.key=value ...]"
    parser.add_argument("images", nargs="+", metavar="IMAGES", help="a folder, a glob, a .txt list, or single images")
    parser.add_argument("--model", required=True, metavar="MODEL", help=MODEL)
    parser.add_argument("--output", required=True, metavar="DIR", help="where masks, overlays and shares go")
    parser.add_argument("--batch-size", type=int, default=8, metavar="N", help="images at a time (default 8)")
    parser.add_argument("--trust-remote-code", action="store_true", help=TRUST)
    parser.set_defaults(overrides=[])
    parser = add_command(
        commands,
        "export",
        "write a model as an ONNX file, once it computes what the model does",
        """
        hfseg export runs/quickstart quickstart.onnx
        hfseg export nvidia/segformer-b0-finetuned-ade-512-512 b0.onnx --argmax
        """,
        lambda given: export(given.model, given.file, given.argmax, given.trust_remote_code),
    )
    parser.add_argument("model", metavar="MODEL", help=MODEL)
    parser.add_argument("file", metavar="FILE.onnx", help="the file to write")
    parser.add_argument("--argmax", action="store_true", help="add the output `ids`: classes at the input's size")
    parser.add_argument("--trust-remote-code", action="store_true", help=TRUST)
    parser = add_command(
        commands,
        "push",
        "publish a finished run, or a data set, on the Hub",
        """
        hfseg push runs/quickstart hub.repo=me/name
        hfseg push runs/quickstart hub.repo=me/name hub.private=false
        hfseg push --dataset my/folder hub.repo=me/name --license cc-by-4.0
        """,
        _push,
    )
    parser.add_argument(
        "run", metavar="RUN_DIR", help="folder of the run; with --dataset all that `hfseg train` takes"
    )
    parser.add_argument("overrides", nargs="*", metavar="hub.key=value", help="where to, and how")
    parser.add_argument("--dataset", action="store_true", help="publish the data, once `hfseg check` finds no error")
    parser.add_argument("--license", metavar="ID", help="of the data, as the Hub lists it, such as cc-by-4.0 or other")


def _predict(given: argparse.Namespace) -> None:
    """Behind IMAGES, words such as `eval.flip=true` are overrides."""
    overrides = [word for word in given.images if OVERRIDE.match(word)]
    images = [word for word in given.images if word not in overrides]
    if not images:
        given.parser.error("IMAGES is missing: give a folder, a glob, a .txt list, or single images")
    overrides += given.overrides
    predict(images, given.model, given.output, overrides, given.batch_size, given.trust_remote_code)


def predict(
    images: Sequence[str],
    model: str,
    output: str,
    overrides: Sequence[str] = (),
    batch_size: int = 8,
    trust_remote_code: bool = False,
) -> None:
    """Segments files into files."""
    from hfseg.inference import predict_images

    predict_images(images, model, output, overrides, batch_size, trust_remote_code)


def export(model: str, file: str, argmax: bool = False, trust_remote_code: bool = False) -> int:
    """Writes an ONNX file; the exit code is 1 where it is not equal to the model, and was not written."""
    from hfseg.inference import ParityError, export_onnx

    try:
        report = export_onnx(model, file, argmax, trust_remote_code)
    except ParityError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(
        f"{file}: equal to the model in {len(report['cases'])} cases, largest difference "
        f"{report['max_difference']:.1e} (allowed {report['tolerance']:g}); {report['export_seconds']} s to export, "
        f"{report['parity_seconds']} s to compare"
    )
    return 0


def _push(given: argparse.Namespace) -> None:
    if given.dataset:
        push_dataset(given.run, given.overrides, given.license)
    elif given.license:
        given.parser.error("--license is for --dataset: a model's card says whose terms hold")
    else:
        push(given.run, given.overrides)


def push_dataset(name: str, overrides: Sequence[str] = (), licence: str | None = None) -> None:
    """Publishes the data of a config or a folder; what a config's `hub` says is about models."""
    config = load(name, ["hub={}", *overrides], trains=False)
    from hfseg.doctor import check
    from hfseg.publishing import check_data_push, push_data

    repo = check_data_push(config, licence)
    check(config).raise_errors()
    push_data(config, repo, licence)


def push(run_dir: str, overrides: Sequence[str] = ()) -> None:
    """Publishes a finished run."""
    from hfseg.publishing import publish_finished

    publish_finished(run_dir, overrides)
