import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
from accelerate.commands.config.config_args import load_config_from_file

from hfseg import DataConfig, EvalConfig, RunConfig, TransformsConfig, UserError
from hfseg.config import ModelConfig
from hfseg.config.sections import FCN_TRANSFORMS
from hfseg.config.train_keys import OTHER_NAMES, RESERVED_TRAIN_KEYS, train_types
from hfseg.files import parse_yaml
from hfseg.runs import DATA_SETS
from hfseg.study.plan import plan
from hfseg.training import training_arguments
from tests.conftest import REPOSITORY

DATA = {"name": "synthetic_pet"}
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
        ("model.size=b9", "model.size: no size of segformer. Known here: b0, b1, b2, b3, b4, b5. (got 'b9')"),
        ("model={type: fcn, size: resnet5}", "Did you mean `resnet50`?"),
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
        ("loss.class_weights=[.nan, 1, 1]", "'.nan' is no finite number"),
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


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: RunConfig(trian={}), ["RunConfig(...): 3 problem(s)", "trian: unknown key. Did you mean `train`?"]),
        (lambda: RunConfig(name="a", data=DATA, model={"size": "b9"}), ["model.size: no size of segformer"]),
        (lambda: RunConfig(name="a", data=DATA, model={"siez": "b0"}), ["model.siez: unknown key. Did", "`size`"]),
        (lambda: RunConfig(name="a", data=DATA, train={"seed": 1, "max_step": 3}), ["`seed` at", "`max_steps`"]),
        (lambda: RunConfig("my.yaml"), ["RunConfig takes its keys by name", "'my.yaml'", "RunConfig.load(path)"]),
        (lambda: EvalConfig(mod="slide"), ["EvalConfig(...): 1 problem(s)", "mod: unknown key. Did you mean `mode`?"]),
        (lambda: EvalConfig(mode="slide"), ["needs `crop` and `stride`"]),
        (lambda: TransformsConfig(size=1), ["size: Input should be greater than or equal to 32 (got 1)"]),
    ],
)  # fmt: skip
def test_constructors_say_what_the_file_s_errors_say(call: Callable[[], object], said: list[str]) -> None:
    with pytest.raises(UserError) as error:
        call()
    assert all(part in str(error.value) for part in said), str(error.value)


def test_a_constructor_and_a_tree_give_the_same() -> None:
    tree = {"name": "a", "data": DATA, "train": {"max_steps": None, "learning_rate": 1e-3}}
    config = RunConfig(**tree)
    assert config == RunConfig.from_tree(tree, "test")
    assert config.train == {"learning_rate": 1e-3}
    assert config.model_copy(update={"seed": 7}) == RunConfig(**tree, seed=7)
    assert pickle.loads(pickle.dumps(config)) == config


def test_a_saved_config_is_the_same_run(tmp_path: Path) -> None:
    config = load(tmp_path, MINIMAL, "train.max_steps=3", "transforms.scale=null")
    config.save(tmp_path / "saved.yaml")
    assert RunConfig.load(tmp_path / "saved.yaml") == config


CONFIGS = sorted((REPOSITORY / "configs").glob("**/*.yaml"))
RUN_CONFIGS = [path for path in CONFIGS if path.parent.name != "accelerate"]


@pytest.mark.parametrize("path", RUN_CONFIGS, ids=lambda path: path.stem)
def test_shipped_configs_load(path: Path) -> None:
    config = RunConfig.load(path)
    is_study = path.parent.name == "study"
    assert (config.study is not None) == is_study
    assert (
        len(plan(config)) > 6
        if is_study
        else training_arguments(as_on_a_cpu(config)).max_steps == config.train["max_steps"]
    )


def as_on_a_cpu(config: RunConfig) -> RunConfig:
    return config.model_copy(update={"train": config.train | {"use_cpu": True}})


@pytest.mark.parametrize("path", sorted(set(CONFIGS) - set(RUN_CONFIGS)), ids=lambda path: path.stem)
def test_shipped_accelerate_configs_load(path: Path) -> None:
    loaded = load_config_from_file(str(path))
    assert set(parse_yaml(path.read_text(), str(path))) - set(vars(loaded)) == set()
    assert loaded.num_processes % loaded.num_machines == 0


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_comments_of_shipped_configs_name_what_there_is(path: Path) -> None:
    """Files, keys and flags; and nothing that is only so for now."""
    comments = "\n".join(re.findall(r"# ?(.*)", path.read_text()))
    assert not re.search(r"so far|\byet\b|for now|once .* is there|TODO", comments)
    for file in re.findall(r"(?:configs|scripts)/[\w/.]+", comments):
        assert (REPOSITORY / file).is_file(), file
    flags = "".join(each.read_text() for each in (REPOSITORY / "scripts").glob("*.py"))
    for flag in set(re.findall(r"--[a-z]+[\w-]*", comments)) - {"--config_file", "--machine_rank", "--multi_gpu"}:
        assert f'"{flag}"' in flags, flag
    for key in re.findall(r"`([a-z_]+\.[a-z_]+)`|(?<![\w.])([a-z]+\.[a-z_]+)=", comments):
        section, _, last = "".join(key).partition(".")
        if section in RunConfig.model_fields:
            assert exists(f"{section}.{last}"), key


def test_cityscapes_is_scored_as_in_the_paper() -> None:
    config = RunConfig.load(REPOSITORY / "configs" / "cityscapes" / "segformer_b0.yaml")
    assert (config.eval.mode, config.eval.crop, config.eval.stride) == ("slide", 1024, 768)
    assert config.transforms.size == 1024


def test_every_available_data_set_has_its_line_in_the_card() -> None:
    assert set(get_args(DataConfig.model_fields["name"].annotation)) == set(DATA_SETS)


def test_no_is_a_word_and_false_is_false(tmp_path: Path) -> None:
    config = load(tmp_path, MINIMAL, "train.logging_strategy=no", "train.bf16=false", "transforms.flip=no")
    assert config.train == {"logging_strategy": "no", "bf16": False}
    assert config.transforms.flip is False
    config.save(tmp_path / "saved.yaml")
    assert RunConfig.load(tmp_path / "saved.yaml") == config


STEPS = ("train.max_steps=4", "train.eval_strategy=steps", "train.eval_steps=2", "train.save_strategy=steps",
         "train.save_steps=2")  # fmt: skip
SUGGESTED = re.compile(r"`([\w.]+=[\w.-]+)`")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ([*STEPS, "train.num_train_epochs=50"], "train.num_train_epochs=50 does nothing beside train.max_steps=4"),
        (["train.eval_steps=300"], "train.eval_steps=300 does nothing beside train.eval_strategy=epoch"),
        (["train.save_steps=300", "train.save_strategy=best"], "train.save_steps=300 does nothing beside train.save"),
        (["train.logging_steps=5", "train.logging_strategy=epoch"], "train.logging_steps=5 does nothing beside"),
        (["train.warmup_steps=0.1", "train.lr_scheduler_type=constant"], "train.warmup_steps=0.1 does nothing beside"),
        (["train.lr_scheduler_type=constant_with_warmup", "train.lr_scheduler_kwargs={power: 2}"], "{'power': 2}"),
        (["train.hub_strategy=end"], "train.hub_strategy='end' does nothing beside train.push_to_hub=false"),
        (["train.gradient_checkpointing_kwargs={use_reentrant: false}"], "beside train.gradient_checkpointing=false"),
        (["train.load_best_model_at_end=false", "train.metric_for_best_model=loss"], "beside train.load_best_model"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)  # fmt: skip
def test_a_setting_that_loses_is_told_and_so_is_the_remedy(tmp_path: Path, overrides: list[str], said: str) -> None:
    complained = complaint(tmp_path, MINIMAL, *overrides)
    assert said in complained
    first, _, leave_out = complained.rpartition(", or leave it out")
    remedies = SUGGESTED.findall(first.rpartition(": set ")[2]), SUGGESTED.findall(leave_out)
    for remedy in remedies:
        assert remedy
        needed = ["hub.repo=me/name"] if remedy == ["train.push_to_hub=true"] else []
        config = load(tmp_path, MINIMAL, *overrides, *remedy, *needed)
        assert training_arguments(as_on_a_cpu(config))


@pytest.mark.parametrize(
    "overrides",
    [["train.eval_strategy=steps", "train.eval_steps=300"], ["train.eval_strategy=no"], ["train.save_strategy=no"],
     ["train.eval_strategy=steps"], ["train.save_strategy=steps"]],
    ids=" ".join,
)  # fmt: skip
def test_strategies_that_do_not_agree(tmp_path: Path, overrides: list[str]) -> None:
    said = complaint(tmp_path, MINIMAL, *overrides)
    assert "does not go with train.eval_strategy=" in said
    for remedy in said.rpartition(": set ")[2].split(", or "):
        config = load(tmp_path, MINIMAL, *overrides, *SUGGESTED.findall(remedy))
        assert training_arguments(as_on_a_cpu(config))


@pytest.mark.parametrize(
    "overrides",
    [STEPS, ["train.num_train_epochs=3"], ["train.num_train_epochs=3", "train.max_steps=-1"], ["train.warmup_steps=9"],
     ["train.lr_scheduler_type=constant"], ["train.save_strategy=best"], ["train.metric_for_best_model=loss"],
     ["train.push_to_hub=true", "train.hub_strategy=end", "hub.repo=me/name"]],
)  # fmt: skip
def test_settings_that_go_together_are_left_alone(tmp_path: Path, overrides: list[str]) -> None:
    assert load(tmp_path, MINIMAL, *overrides).train


def test_null_takes_a_setting_of_the_file_back(tmp_path: Path) -> None:
    text = f"{MINIMAL}train: {{max_steps: 4, logging_steps: 2, seed: 1}}\n"
    config = load(tmp_path, text, "train.max_steps=null", "train.num_train_epochs=5", "train.seed=null")
    assert config.train == {"logging_steps": 2, "num_train_epochs": 5}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"{MINIMAL}loss: {{aux_weight: 0.5}}", "`loss.aux_weight` is for fcn's second head"),
        (f"{MINIMAL}seed: 1\nstudy: {{arms: {{a: {{}}}}}}", "set `study.seeds`"),
        (f"{MINIMAL}hub: {{repo: me/x}}\nstudy: {{arms: {{a: {{}}}}}}", "publish its runs with `--push`"),
        ("name: a\ndata: {name: hub, root: x, revision: main}", "`revision` is for `repo`"),
    ],
)
def test_keys_that_nothing_looks_at(tmp_path: Path, text: str, said: str) -> None:
    assert said in complaint(tmp_path, text)


def exists(key: str) -> bool:
    """Whether a hint names something that can be typed: a flag of the command, or a key that may be set."""
    if key.startswith("--"):
        return f'"{key}"' in (REPOSITORY / "scripts" / "run_seg.py").read_text()
    section, _, last = key.rpartition(".")
    if section == "train":
        return last in train_types().keys() - RESERVED_TRAIN_KEYS.keys()
    return last in (RunConfig.model_fields[section].annotation if section else RunConfig).model_fields  # type: ignore[union-attr]


WRONG = ("batch_size", "train_batch_size", "epochs", "lr", "optimizer", "patience", "ema", "evaluation_strategy",
         "learning_rat", "no_cuda", "num_workers", "per_gpu_train_batch_size", "save_step", "warmup", "momentum",
         "gradient_accumulation", "early_stopping_patience", "hub_repo", "output", "label_smoothing", "steps",
         "seeds")  # fmt: skip


@pytest.mark.parametrize("key", [*RESERVED_TRAIN_KEYS, *OTHER_NAMES, *WRONG])
@pytest.mark.parametrize("section", ["train.", ""])
def test_hints_lead_to_something_that_works(tmp_path: Path, section: str, key: str) -> None:
    if exists(f"{section}{key}"):  # such as `seed` at the top level
        return
    said = complaint(tmp_path, MINIMAL, f"{section}{key}=x").splitlines()
    assert len(said) == 2
    known = said[1].partition(" Known here: ")[2].rstrip(".")
    for word in re.findall(r"`([^`]+)`", said[1]) + (known.split(", ") if known else []):
        name = word.partition("=")[0]
        full = name if "." in name or "may not be set" in said[1] or name.startswith("--") else f"{section}{name}"
        assert exists(full) or word == "hf auth login", said[1]


def test_long_and_many_values_make_no_long_message(tmp_path: Path) -> None:
    assert len(complaint(tmp_path, MINIMAL, f"train.max_steps=[{'a' * 5000}]")) < 600
    assert len(complaint(tmp_path, MINIMAL, f"eval.mode={'a' * 5000}")) < 600
    text = MINIMAL + "train:\n" + "".join(f"  key{number}: 1\n" for number in range(5000))
    assert len(complaint(tmp_path, text).splitlines()) < 50
