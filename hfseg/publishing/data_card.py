"""The card of a published data set, from the template `data_card.md.jinja`, and how its repository is laid out."""

from pathlib import Path

import datasets
from datasets.info import DatasetInfosDict
from datasets.utils.metadata import MetadataConfigs
from huggingface_hub import DatasetCard, DatasetCardData

from hfseg.config import DataConfig
from hfseg.labels import LabelSet
from hfseg.reporting import escape_markdown
from hfseg.runs import DATA_SETS

TEMPLATE = Path(__file__).with_name("data_card.md.jinja")
SPLITS = ("train", "validation", "test")
FOLDER = "data"  # of the parquet files
CLASS_FILE = "id2label.json"
SIZES = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M")


def build_data_card(
    data: DataConfig, labels: LabelSet, info: datasets.DatasetInfo, repo: str, licence: str | None
) -> DatasetCard:
    """The card, with what the Hub and `datasets` read in its metadata; `licence` is an id of the Hub's list."""
    sizes = {split.name: split.num_examples for split in info.splits.values()}
    title = repo.rpartition("/")[2]
    card_data = DatasetCardData(
        license=licence or "unknown",
        pretty_name=title,
        task_categories=["image-segmentation"],
        task_ids=["semantic-segmentation"],
        size_categories=[SIZES[min(max(len(str(sum(sizes.values()))) - 3, 0), len(SIZES) - 1)]],
        tags=["hfseg"],
    )
    DatasetInfosDict({"default": info}).to_dataset_card_data(card_data)
    files = [{"split": split, "path": f"{FOLDER}/{split}-*"} for split in SPLITS]
    MetadataConfigs({"default": {"data_files": files}}).to_dataset_card_data(card_data)
    card: DatasetCard = DatasetCard.from_template(
        card_data=card_data,
        template_path=str(TEMPLATE),
        title=title,
        repo=repo,
        source=data.repo,
        data_set=DATA_SETS[data.name],
        note=escape_markdown(data.note or ""),
        names=[escape_markdown(name) for name in labels.names],
        ignore_index=published_ignore_index(labels),
        sizes=sizes,
        licence=licence,
        class_file=CLASS_FILE,
    )
    return card


def published_ignore_index(labels: LabelSet) -> int:
    """That of the published masks: a PNG holds no negative one."""
    return labels.ignore_index if labels.ignore_index >= 0 else LabelSet(labels.names).ignore_index
