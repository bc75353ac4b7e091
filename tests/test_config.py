from pathlib import Path
from typing import get_args

import pytest

from hfseg import DataConfig, RunConfig, TransformsConfig, UserError
from hfseg.config import FCN_TRANSFORMS, ModelConfig
from hfseg.model_card import DATA_SETS
from tests.conftest import REPOSITORY

MINIMAL = "name: a-run\ndata: {name: synthetic_pet}\n"


def load(tmp_path: Path, text: str, *overrides: str) -> RunConfig:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    return RunConfig.load(path, overrides)


def complaint(tmp_path: Path, text: str, *overrides: str) -> str:
    with pytest.raises(UserError) as error:
        load(tmp_path, text, *overrides)
    return str(error.value)


def test_defaults_are_the_paper_recipe(tmp_path: Path) -> None:
    config = load(tmp_path, MINIMAL)
    assert config.output_dir == Path("runs/a-run")
    assert (config.transforms.size, config.transforms.scale, config.transforms.cat_max_ratio) == (
        512,
        (0.5, 2.0),
        0.75,
    )
    assert config.optim.head_lr_factor == 10
    assert config.eval_size == 512


def test_fcn_has_its_own_recipe(tmp_path: Path) -> None:
    config = load(tmp_path, MINIMAL, "model.type=fcn", "model.size=resnet50", "transforms.flip=false")
    transforms = config.transforms
    assert (transforms.size, transforms.cat_max_ratio, transforms.photometric) == (480, None, False)
    assert [480 * factor for factor in transforms.scale or ()] == pytest.approx([260, 1040])  # of torchvision's 520
    assert not transforms.flip
    config.save(tmp_path / "saved.yaml")
    assert RunConfig.load(tmp_path / "saved.yaml") == config
    assert load(tmp_path, MINIMAL, "model.type=fcn", "transforms.photometric=true").transforms.photometric
    model, data = ModelConfig(type="fcn", size="resnet50"), DataConfig(name="synthetic_pet")
    assert RunConfig(name="a", data=data, model=model).transforms == TransformsConfig(**FCN_TRANSFORMS)
    chosen = TransformsConfig(size=64)
    assert RunConfig(name="a", data=data, model=model, transforms=chosen).transforms == chosen
    assert "transforms.sise: unknown key" in complaint(tmp_path, MINIMAL, "model.type=fcn", "transforms.sise=1")


def test_overrides_win_and_scientific_notation_is_a_number(tmp_path: Path) -> None:
    config = load(tmp_path, MINIMAL, "train.learning_rate=6e-5", "transforms.size=64", "data.synthetic.seed=7")
    assert config.train == {"learning_rate": 6e-5}
    assert config.eval_size == 64
    assert config.data.synthetic.seed == 7


def test_every_unknown_key_is_listed_at_once_with_the_nearest_name(tmp_path: Path) -> None:
    said = complaint(
        tmp_path, "name: r\ndata: {name: synthetic_pet, rot: x}\ntrian: {}\ntrain: {learning_rat: 1, max_steps: 3}\n"
    )
    assert str(tmp_path / "run.yaml") in said
    for key, nearest in (("data.rot", "`root`"), ("trian", "`train`"), ("train.learning_rat", "`learning_rate`")):
        assert any(key in line and nearest in line for line in said.splitlines()), (key, said)
    assert "max_steps" not in said


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("train.learning_rate=fast", "train.learning_rate: Input should be a valid number"),
        ("train.output_dir=x", "set `output_dir` at the top level"),
        ("train.seed=1", "set `seed` at the top level"),
        ("train.evaluation_strategy=steps", "Did you mean `eval_strategy`?"),
        ("transforms.scale=[2, 1]", "transforms.scale: must be two positive factors"),
        ("data.name=oxford_pets", "data.name: Input should be"),
        ("name=a/b", "becomes a folder's name"),
        ("hub.privat=true", "Did you mean `private`?"),
        ("train.push_to_hub=true", "`train.push_to_hub` needs `hub.repo`"),
        ("train.hub_strategy=checkpoint", "would send the optimizer"),
        ("train.hub_model_id=me/name", "set `hub.repo`"),
        ("eval.mode=slide", "eval: `mode: slide` needs `crop` and `stride`"),
        ("eval.crop=64", "eval: `crop` and `stride` are for `mode: slide`"),
        ("eval={mode: slide, crop: 64, stride: 65}", "eval: `stride` 65 is larger than `crop` 64"),
        ("eval={mode: whole, size: 64}", "eval: `size` is for `mode: resize`"),
        ("eval.scales=[]", "eval.scales: Tuple should have at least 1 item"),
        ("eval.scales=[0.5, -1]", "eval.scales.1: Input should be greater than 0"),
        ("eval.mode=tile", "eval.mode: Input should be 'resize', 'whole' or 'slide'"),
        ("eval={crops: 64}", "Did you mean `crop`?"),
        ("train.learning_rate='1e-3'", "train.learning_rate: Input should be a valid number"),
        ("train.per_device_train_batch_size=0", "train.per_device_train_batch_size: must be at least 1"),
        ("train.hub_token=hf_secret", "log in with `hf auth login`"),
        ("train.label_smoothing_factor=0.5", "set `loss.label_smoothing`"),
        ("model.freeze={stage: 1}", "Did you mean `stages`?"),
        ("seed=-1", "seed: Input should be greater than or equal to 0"),
        ("loss.class_weights=[.nan, 1, 1]", "loss.class_weights.0: Input should be a finite number"),
        ("transforms", "is not an override"),
        ("name.sub=1", "`name` holds a value"),
        ("train.max_steps=[", "is not valid YAML"),
    ],
)
def test_bad_values_name_their_key(tmp_path: Path, override: str, said: str) -> None:
    assert said in complaint(tmp_path, MINIMAL, override)


def test_missing_file_and_missing_keys(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no config file"):
        RunConfig.load(tmp_path / "nowhere.yaml")
    said = complaint(tmp_path, "seed: 1\n")
    assert "name: this key is required" in said
    assert "data: this key is required" in said


def test_a_saved_config_is_the_same_run(tmp_path: Path) -> None:
    config = load(tmp_path, MINIMAL, "train.max_steps=3", "transforms.scale=null")
    config.save(tmp_path / "saved.yaml")
    assert RunConfig.load(tmp_path / "saved.yaml") == config


RUN_CONFIGS = [path for path in sorted((REPOSITORY / "configs").glob("**/*.yaml")) if path.parent.name != "accelerate"]


@pytest.mark.parametrize("path", RUN_CONFIGS, ids=lambda path: path.stem)
def test_shipped_configs_load(path: Path) -> None:
    assert RunConfig.load(path).name


def test_every_available_data_set_has_its_line_in_the_card() -> None:
    assert set(get_args(DataConfig.model_fields["name"].annotation)) == set(DATA_SETS)


def test_no_is_a_word_and_false_is_false(tmp_path: Path) -> None:
    config = load(tmp_path, MINIMAL, "train.eval_strategy=no", "train.bf16=false", "transforms.flip=no")
    assert config.train == {"eval_strategy": "no", "bf16": False}
    assert config.transforms.flip is False
    config.save(tmp_path / "saved.yaml")
    assert RunConfig.load(tmp_path / "saved.yaml") == config
