"""Where data and weights come from: their names and licences, for the model card."""

import re
from dataclasses import dataclass
from pathlib import Path

from hfseg.config import RunConfig
from hfseg.runs.private_paths import PICKLES, public_init


@dataclass(frozen=True)
class Licence:
    """Of the weights; `name` and `link` are for the id `other` only."""

    id: str  # of the Hub's list
    reason: str  # a sentence for the reader
    name: str | None = None
    link: str | None = None


@dataclass(frozen=True)
class DataSet:
    """A data set as a card speaks of it."""

    title: str  # to follow "trained on"
    licence: str  # a sentence
    limits: str  # what a model trained on it should not be trusted with
    hub_id: str | None = None
    weights: Licence | None = None  # trained on it, where its terms hold for them
    is_drawn: bool = False  # by hfseg, so that its pictures may be shown to anyone
    data_licence: str | None = None  # of the Hub's list, where it is known
    may_be_passed_on: bool = True


CITYSCAPES = Licence(
    "other",
    "The weights were trained on Cityscapes, whose terms allow non-commercial use only.",
    "cityscapes-terms-of-use",
    "https://www.cityscapes-dataset.com/license/",
)
OWN_LICENCE = "The data has a licence of its own, which hfseg does not know."
OWN_LIMITS = "It knows the kind of pictures it was trained on; nothing is known of any other kind."
DRAWN_LICENCE = "The data is drawn by hfseg (Apache-2.0)."
DRAWN_LIMITS = "The training pictures are drawn by a program: this is a demonstration and no model for photographs."
DATA_SETS = {
    "oxford_pet": DataSet(
        "Oxford-IIIT Pet",
        "The data, Oxford-IIIT Pet, is CC BY-SA 4.0; its pictures belong to their photographers.",
        "It knows cats and dogs that fill much of the picture; other animals, and scenes with several, are new to it.",
        hub_id="timm/oxford-iiit-pet",
        data_licence="cc-by-sa-4.0",
    ),
    "cityscapes": DataSet(
        "Cityscapes (scored on the official val)",
        "The data, Cityscapes, is free for non-commercial use only, under its own terms.",
        "It knows daylight streets of German cities from behind a windscreen. It is not fit to steer anything.",
        weights=CITYSCAPES,
        may_be_passed_on=False,
    ),
    "folder": DataSet("own images and masks", OWN_LICENCE, OWN_LIMITS),
    "hub": DataSet("a data set of the Hub", OWN_LICENCE, OWN_LIMITS),
    "synthetic_pet": DataSet(
        "hfseg's drawn pets", DRAWN_LICENCE, DRAWN_LIMITS, is_drawn=True, data_licence="apache-2.0"
    ),
    "synthetic_cityscapes": DataSet(
        "hfseg's drawn streets", DRAWN_LICENCE, DRAWN_LIMITS, is_drawn=True, data_licence="apache-2.0"
    ),
}


NVIDIA = Licence(
    "other",
    "The weights derive from NVIDIA's SegFormer weights, whose licence allows non-commercial use only.",
    "nvidia-source-code-license-for-segformer",
    "https://github.com/NVlabs/SegFormer/blob/master/LICENSE",
)


def hub_id(config: RunConfig) -> str | None:
    """The Hub repository that the weights started from, if they did."""
    init = config.model.init
    is_id = init is not None and re.fullmatch(r"\w[\w.-]*/[\w.-]+", init) and Path(init).suffix not in PICKLES
    return init if is_id and not Path(str(init)).exists() else None


def is_torchvision(init: str | None) -> bool:
    """Whether `model.init` names one of torchvision's weights, such as ResNet50_Weights.IMAGENET1K_V2."""
    return init is not None and re.fullmatch(r"\w+_Weights\.\w+", init) is not None


def is_nvidia(config: RunConfig) -> bool:
    """Whether the weights started from NVIDIA's: their Hub ids, or the research files, which are always pickles."""
    init = config.model.init or ""
    is_research_file = config.model.type == "segformer" and Path(init).suffix in PICKLES
    return init.lower().startswith("nvidia/") or is_research_file


def licence_of_weights(config: RunConfig) -> Licence:
    """What may be done with the weights, as far as the config tells; `unknown` where only the owner can say."""
    init = config.model.init
    if is_nvidia(config):
        return NVIDIA
    if (of_the_data := DATA_SETS[config.data.name].weights) is not None:
        return of_the_data
    if init is not None and not is_torchvision(init):
        return Licence("unknown", f"The weights derive from `{public_init(init)}`: its licence holds for them too.")
    if config.data.name in ("folder", "hub"):
        return Licence("unknown", "The weights may be used as far as the owner of the data allows.")
    if init is not None:
        return Licence(
            "apache-2.0",
            "The weights are under Apache-2.0. They derive from torchvision's (BSD-3-Clause), which were trained on "
            "public data sets with terms of their own.",
        )
    return Licence("apache-2.0", "The weights are under Apache-2.0.")
