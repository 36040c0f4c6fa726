"""Recipes: strict, overridden by dotted keys, compared on resume, and every shipped one trains two steps."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from small_runs import CONVOLUTIONAL, MEL, SPECTRAL, adversarial, mapping
from sovits_files import write_sovits

from melisma.cli import main
from melisma.errors import MelismaError
from melisma.generators.nsf_hifigan import NsfHifigan
from melisma.interop import load_checkpoint as load_model
from melisma.interop.own import save_model
from melisma.training import launch
from melisma.training.checkpoint import find_checkpoints
from melisma.training.launch import split_overrides
from melisma.training.recipe import Recipe, differences, read_recipe, recipe_from, recipe_mapping, suggest_rates
from melisma.training.schedule import OptimizerSettings

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))


def write(path: Path, content: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def test_a_recipe_survives_json(recipe: Recipe, gan: Recipe) -> None:
    for one in (recipe, gan):
        back = json.loads(json.dumps(recipe_mapping(one)))
        assert recipe_from(back, "again") == one
        assert differences(back, one) == []


def test_overrides_go_before_the_file(tmp_path: Path, dataset: Path) -> None:
    path = write(tmp_path / "r.yaml", mapping(dataset))
    given = ["batch=8", "data.frames=32", "optimizer.learning_rate=1e-4", "losses.mel=3", "generator.channels=16"]
    recipe = read_recipe(path, [*given, "discriminators.multi-scale.width=0.1", "losses.hinge=1"])
    assert (recipe.batch, recipe.data.frames, recipe.optimizer.learning_rate) == (8, 32, 1e-4)
    assert recipe.losses["mel"] == 3
    assert recipe.generator is not None
    assert recipe.generator.channels == 16  # type: ignore[union-attr]
    assert recipe.discriminators == {"multi-scale": {"width": 0.1}}
    with pytest.raises(MelismaError, match=r"--batch\.x: batch is 2 in the recipe"):
        read_recipe(path, ["batch.x=3"])


def test_settings_are_told_from_the_commands_own_options() -> None:
    given = ["train", "a.yaml", "run", "--batch", "4", "--data.folders=[x]", "--tensorboard"]
    assert split_overrides(given, ("--tensorboard",)) == (
        ["train", "a.yaml", "run", "--tensorboard"],
        ["batch=4", "data.folders=[x]"],
    )
    with pytest.raises(MelismaError, match="--batch: give a value"):
        split_overrides(["--batch"])


def test_what_differs_on_resume_is_named_and_what_may_differ_is_not(recipe: Recipe) -> None:
    saved = json.loads(json.dumps(recipe_mapping(recipe)))
    longer = dataclasses.replace(recipe, steps=99, save_every=7)
    assert differences(saved, longer) == []
    other = recipe_from({**saved, "seed": 3, "losses": {"mel": 1.0}}, "other")
    assert [line.split(":")[0] for line in differences(saved, other)] == [
        "losses.spectral-energy", "losses.projected/input-mel", "losses.projected/spectral", "seed", "losses.mel",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batchsize": 3}, r"recipe\.yaml: unknown key 'batchsize'; did you mean 'batch'"),
        ({"generator": SPECTRAL | {"chanels": 3}}, "generator: unknown key 'chanels'; did you mean 'channels'"),
        ({"generator": SPECTRAL | {"mel": MEL | {"hop": 3}}}, "generator: mel: unknown key 'hop'"),
        ({"bach": 3, "data": {"foldr": []}}, "unknown key 'bach'.*'batch'.*and data: unknown key 'foldr'.*'folders'"),
        ({"a": 1, "b": 2, "c": 3, "d": 4}, "unknown key 'a', and unknown key 'b', and unknown key 'c', and 1 more"),
        ({"batch": "many", "steps": "few"}, "steps: .* integer, and batch: .* integer"),
        ({"generator": SPECTRAL | {"kind": "spectrel"}}, "unknown generator 'spectrel'.*did you mean 'spectral'"),
        ({"generator": {"kind": "analytic", "mel": MEL}}, "'analytic' has no weights to train"),
        ({"generator": {"mel": MEL}}, "generator: needs kind, one of nsf-hifigan, spectral"),
        ({"generator": None}, "names no generator"),
        ({"generator": CONVOLUTIONAL | {"upsample_rates": [8, 4, 2]}}, r"make 64 .* is 128; try upsample_rates \[4, 4"),
        ({"batch": "many"}, r"recipe\.yaml: batch: "),
        ({"steps": 0}, "steps is 0"),
        ({"ema": 1.0}, "ema is 1"),
        ({"losses": {"mell": 1.0}}, "unknown loss 'mell'.*did you mean 'mel'"),
        ({"losses": {}}, "no loss"),
        ({"losses": {"mel": -1}}, "losses.mel is -1"),
        ({"losses": {"mel": 1, "hinge": 1}}, "hinge: there is no discriminator"),
        ({"losses": {"hinge": 1, "least-squares": 1}, "discriminators": {"multi-scale": {}}}, "exclude each other"),
        ({"discriminators": {"multi-scale": {}}}, "without an adversarial loss"),
        ({"discriminators": {"multi-scal": {}}}, "unknown discriminator 'multi-scal'"),
        ({"loss_settings": {"resolutions_a_step": 4, "resolutions": [128]}}, "resolutions_a_step is 4"),
        ({"loss_settings": {"projections": []}}, r"projections \(\)"),
        ({"losses": {"projected/mel": 1}, "loss_settings": {"projections": [0]}}, "add a plain loss"),
        ({"generator": CONVOLUTIONAL, "losses": {"projected/mel": 1}}, "only spectral generators"),
        ({"data": {"frames": 0}}, "data.frames is 0"),
        ({"data": {"mismatch": 2}}, "data.mismatch is 2"),
        ({"data": {}}, "names no data"),
        ({"data": {"folders": ["nowhere"]}}, "nowhere: no such folder; make one with: melisma prepare"),
        ({"optimizer": {"clip_norm": 0}}, "must be positive"),
        ({"validation": {"every": -1}}, "0 or more"),
        ({"batch": 3, "accumulate": 2}, "batch 3 cannot be parted among 1 processes and 2"),
        ({"start_from": "nothing.pth"}, r"nothing\.pth: no such"),
        ({"device": "cuda"}, "finds no CUDA device"),
    ],
)
def test_a_bad_recipe_is_one_clear_line(
    tmp_path: Path, dataset: Path, capsys: pytest.CaptureFixture, changes: dict[str, Any], message: str
) -> None:
    if changes.get("device") == "cuda" and torch.cuda.is_available():
        pytest.skip("there is one here")
    path = write(tmp_path / "recipe.yaml", mapping(dataset) | changes)
    with pytest.raises(MelismaError, match=message):
        launch.train(path, tmp_path / "run")
    assert main(["train", str(path), str(tmp_path / "run")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("content", "message"), [(b"a: [", "not YAML"), (b"\xff\xfe", "not YAML"), (b"", "a mapping")])
def test_a_file_that_is_no_recipe_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(MelismaError, match="no such recipe"):
        read_recipe(tmp_path / "missing.yaml")
    with pytest.raises(MelismaError, match="cannot be read"):
        read_recipe(tmp_path)
    (tmp_path / "bad.yaml").write_bytes(content)
    with pytest.raises(MelismaError, match=message):
        read_recipe(tmp_path / "bad.yaml")


@pytest.mark.parametrize("hop", [64, 100, 128, 240, 256, 300, 320, 400, 441, 480, 512, 1024])
def test_suggested_rates_make_a_generator(hop: int) -> None:
    rates = suggest_rates(hop)
    assert int(np.prod(rates)) == hop
    assert len(rates) <= 5


@pytest.mark.parametrize("schedule", ["cosine", "exponential", "constant"])
def test_the_learning_rate_rises_and_falls(schedule: Any) -> None:
    settings = OptimizerSettings(learning_rate=1e-3, warmup=10, schedule=schedule, final_share=0.01)
    rates = [settings.rate(step, 100) for step in range(101)]
    assert rates[0] == pytest.approx(1e-4)
    assert rates[10] == max(rates) == pytest.approx(1e-3)
    assert rates[100] == pytest.approx(1e-3 if schedule == "constant" else 1e-5)
    assert np.all(np.diff(rates[10:]) <= 0)


# What makes the shipped recipes small enough for a test: everything but the sizes stays as it is.
CONVOLUTIONAL_SIZES = [
    "generator.upsample_initial_channel=32", "generator.resblock_kernel_sizes=[3]",
    "generator.resblock_dilation_sizes=[[1,3]]", "data.frames=8",
]  # fmt: skip
SPECTRAL_SIZES = ["generator.channels=8", "generator.blocks=1", "data.frames=12", "data.balance=0"]
JUDGE_SIZES = {
    "multi-period": "width=0.03125", "multi-scale": "width=0.0625", "single-scale": "width=0.03125",
    "multi-resolution": "width=0.125", "sub-band-cqt": "width=0.125",
}  # fmt: skip


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_shipped_recipes_train_two_steps(path: Path, dataset: Path, tmp_path: Path) -> None:
    whole = read_recipe(path)
    sizes = [f"discriminators.{name}.{JUDGE_SIZES[name]}" for name in whole.discriminators]
    overrides = [*sizes, "steps=2", "batch=2", f"data.folders=[{dataset}]", "data.shares={}", "validation.pieces=1"]
    overrides += ["validation.frames=8", "discriminator_warmup=1", "loss_settings.resolutions=[256,512]"]
    overrides += ["loss_settings.resolutions_a_step=1", "data.resample_range=[0.9,1.2]"]
    if whole.start_from is None:
        overrides += CONVOLUTIONAL_SIZES if whole.generator.__class__.__name__ == "NsfHifiganConfig" else SPECTRAL_SIZES
    elif path.stem.startswith("sovits"):
        overrides += [f"start_from={write_sovits(tmp_path)}", "data.frames=8"]
    else:
        start = tmp_path / "start.safetensors"
        small = recipe_from(adversarial(dataset), "small")
        save_model(start, NsfHifigan(small.generator), name="start", licence="MIT")  # type: ignore[arg-type]
        overrides += [f"start_from={start}", "data.frames=8"]
    launch.train(path, tmp_path / "run", overrides)
    assert [step for step, _ in find_checkpoints(tmp_path / "run", "S")] == [0, 2]
    assert main(["export", "model", str(tmp_path / "run"), "-o", str(tmp_path / "model.safetensors")]) == 0
    loaded = load_model(tmp_path / "model.safetensors")
    assert loaded.name == (whole.about.name or "run")
    assert all(weight.isfinite().all() for weight in loaded.generator.state_dict().values())
