"""The configuration of a run and of a study: its schema, and the YAML file and overrides that fill it."""

from hfseg.config.data import OWNERS, DataConfig, SyntheticConfig
from hfseg.config.schema import RunConfig, type_of
from hfseg.config.section import explain
from hfseg.config.sections import MODEL_SIZES, EvalConfig, HubConfig, LossConfig, ModelConfig, TransformsConfig
from hfseg.config.study import PRETRAIN, SECTIONS, VARIES, StudyConfig
from hfseg.config.train_keys import RESERVED_TRAIN_KEYS, TRAIN_DEFAULTS, nearest
from hfseg.config.yaml_file import apply_override, read_yaml

__all__ = [
    "MODEL_SIZES",
    "OWNERS",
    "PRETRAIN",
    "RESERVED_TRAIN_KEYS",
    "SECTIONS",
    "TRAIN_DEFAULTS",
    "VARIES",
    "DataConfig",
    "EvalConfig",
    "HubConfig",
    "LossConfig",
    "ModelConfig",
    "RunConfig",
    "StudyConfig",
    "SyntheticConfig",
    "TransformsConfig",
    "apply_override",
    "explain",
    "nearest",
    "read_yaml",
    "type_of",
]
