"""From files to samples: every data set as `datasets` splits with classes, and batches for training and evaluation."""

from hfseg.data.cityscapes import CATEGORIES, cityscapes_labels
from hfseg.data.collator import SegCollator, normalise
from hfseg.data.draft_classes import draft_class_file, has_class_file
from hfseg.data.folder import find_layout
from hfseg.data.images import (
    DEEP_MODES,
    TO_8_BITS,
    UNREADABLE,
    allow_pixels,
    as_rgb,
    check_regular,
    decode_label,
    depth_problem,
    encode_label,
    explain_unreadable,
    has_more_frames,
    is_image,
    is_unreadable_image,
    open_header,
    open_image,
    orientation_of,
    reading,
    upright,
)
from hfseg.data.load import cache_folder, find_source, load_dataset
from hfseg.data.masks import list_greys, looks_grey, place_ids
from hfseg.data.oxford_pet import pet_labels
from hfseg.data.pairing import same_form
from hfseg.data.rows import EncodedRows, file_of_cell, read_row, undecoded
from hfseg.data.samples import EvalSet, StreamingTrainSet, TrainSet, eval_set, some_rows, train_set
from hfseg.data.source import Pair, Source, file_state
from hfseg.data.transforms import TrainTransform
from hfseg.data.workers import check_shared_memory, num_cores

__all__ = [
    "CATEGORIES",
    "DEEP_MODES",
    "TO_8_BITS",
    "UNREADABLE",
    "EncodedRows",
    "EvalSet",
    "Pair",
    "SegCollator",
    "Source",
    "StreamingTrainSet",
    "TrainSet",
    "TrainTransform",
    "allow_pixels",
    "as_rgb",
    "cache_folder",
    "check_regular",
    "check_shared_memory",
    "cityscapes_labels",
    "decode_label",
    "depth_problem",
    "draft_class_file",
    "encode_label",
    "eval_set",
    "explain_unreadable",
    "file_of_cell",
    "file_state",
    "find_layout",
    "find_source",
    "has_class_file",
    "has_more_frames",
    "is_image",
    "is_unreadable_image",
    "list_greys",
    "load_dataset",
    "looks_grey",
    "normalise",
    "num_cores",
    "open_header",
    "open_image",
    "orientation_of",
    "pet_labels",
    "place_ids",
    "read_row",
    "reading",
    "same_form",
    "some_rows",
    "train_set",
    "undecoded",
    "upright",
]
