"""A step: it learns, is clipped, is the same in parts and on several processes, and moves all or nothing."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from small_runs import JUDGES, adversarial, mapping, same, write_dataset
from torch import nn

from melisma.discriminators import DISCRIMINATORS
from melisma.errors import MelismaError
from melisma.losses import ADVERSARIAL
from melisma.training import trainer as module
from melisma.training.checkpoint import find_checkpoints, load_checkpoint
from melisma.training.recipe import Recipe, recipe_from
from melisma.training.step import train_step
from melisma.training.terms import TERMS, losses_of_step
from melisma.training.trainer import Trainer
from melisma.training.view import View

WIDTHS = {"multi-scale": {"width": 1 / 16}, "single-scale": {"width": 1 / 32}} | JUDGES
WIDTHS |= {"sub-band-cqt": {"hop_lengths": [256], "bins_per_octave": [12], "width": 1 / 8}}


def weights(run: Trainer) -> dict[str, torch.Tensor]:
    parts = {"voice": run.state.voice, "judges": run.state.judges, "average": run.state.average}
    return {f"{name}/{key}": value.clone() for name, part in parts.items() for key, value in part.state_dict().items()}


def quiet(run: Trainer) -> View:
    return View(run.folder, run.recipe.steps, True, False)


def moved(before: dict[str, torch.Tensor], run: Trainer) -> set[str]:
    now = weights(run)
    return {name for name, value in before.items() if not torch.equal(value, now[name])}


@pytest.mark.parametrize("name", TERMS)
@pytest.mark.parametrize("prefix", ["", "projected/"])
def test_every_loss_trains_every_weight(tmp_path: Path, dataset: Path, name: str, prefix: str) -> None:
    content = mapping(
        dataset,
        losses={prefix + name: 1.0},
        loss_settings={"resolutions": [256], "resolutions_a_step": 1, "projections": [1]},
    )
    run = Trainer(recipe_from(content, "recipe"), tmp_path)
    before = weights(run)
    values = run.train_step(quiet(run))
    assert np.isfinite(list(values.values())).all()
    assert prefix + name in values
    parameters = {f"voice/{key}" for key, _ in run.state.voice.named_parameters()}
    assert parameters <= moved(before, run)


@pytest.mark.parametrize("judge", DISCRIMINATORS)
@pytest.mark.parametrize("loss", ADVERSARIAL)
def test_every_discriminator_and_adversarial_loss_trains_both_sides(
    tmp_path: Path, dataset: Path, judge: str, loss: str
) -> None:
    content = adversarial(
        dataset, losses={loss: 1.0, "feature-matching": 1.0}, discriminators={judge: WIDTHS[judge]}, steps=2
    )
    run = Trainer(recipe_from(content, "recipe"), tmp_path)
    before = weights(run)
    values = run.train_step(quiet(run))
    assert {f"discriminator/{judge}", loss, "feature-matching", "gradient", "discriminator_gradient"} <= values.keys()
    changed = moved(before, run)
    for side, part in (("voice", run.state.voice), ("judges", run.state.judges)):
        assert {f"{side}/{key}" for key, _ in part.named_parameters()} <= changed


def test_both_sides_learn_on_one_batch(tmp_path: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = adversarial(dataset, losses={"mel": 1.0, "least-squares": 0.01}, steps=400)
    content["optimizer"] = content["discriminator_optimizer"] = {"warmup": 0, "learning_rate": 2e-3}
    run = Trainer(recipe_from(content, "recipe"), tmp_path)
    batches = run.supply.batches(0)
    monkeypatch.setattr(run.supply, "batches", lambda _: batches)
    rows = [run.train_step(quiet(run)) for _ in range(40)]
    for name in ("mel", "discriminator/multi-period", "discriminator/multi-resolution"):
        assert np.mean([row[name] for row in rows[-5:]]) < 0.9 * np.mean([row[name] for row in rows[:5]]), name


@pytest.mark.parametrize("side", ["optimizer", "discriminator_optimizer"])
def test_clipping_is_applied(tmp_path: Path, gan: Recipe, side: str) -> None:
    recipe = dataclasses.replace(gan, **{side: dataclasses.replace(getattr(gan, side), clip_norm=1e-3)})
    run = Trainer(recipe, tmp_path)
    values = run.train_step(quiet(run))
    assert values["gradient" if side == "optimizer" else "discriminator_gradient"] > 1e-3
    part = run.state.voice if side == "optimizer" else run.state.judges
    used = torch.cat([weight.grad.flatten() for weight in part.parameters() if weight.grad is not None])
    assert used.norm().item() == pytest.approx(1e-3, rel=1e-3)


def test_accumulated_parts_are_the_whole_batch(tmp_path: Path, dataset: Path) -> None:
    content = adversarial(dataset, batch=4, steps=3)
    runs = [Trainer(recipe_from(content | {"accumulate": parts}, "recipe"), tmp_path) for parts in (1, 4)]
    rows = [[run.train_step(quiet(run)) for _ in range(2)] for run in runs]
    for whole, parts in zip(*rows, strict=True):
        assert whole.keys() == parts.keys()
        for name, value in whole.items():
            assert parts[name] == pytest.approx(value, rel=1e-3, abs=1e-5), name


def test_the_average_follows(tmp_path: Path, recipe: Recipe) -> None:
    run = Trainer(dataclasses.replace(recipe, ema=0.5), tmp_path)
    start = run.state.voice.generator.head.bias.detach().clone()
    run.train_step(quiet(run))
    now, mean = run.state.voice.generator.head.bias, run.state.average.generator.head.bias
    torch.testing.assert_close(mean, start + 0.9 * (now.detach() - start))  # the first step keeps a tenth


@pytest.mark.parametrize("kind", [mapping, adversarial])
def test_bfloat16_trains_near_float32(tmp_path: Path, dataset: Path, kind: Any) -> None:
    rows = []
    for precision in ("float32", "bfloat16"):
        run = Trainer(recipe_from(kind(dataset, precision=precision), "recipe"), tmp_path)
        rows.append(run.train_step(quiet(run)))
        assert all(weight.dtype == torch.float32 for weight in run.state.voice.parameters())
    for name, value in rows[0].items():
        assert rows[1][name] == pytest.approx(value, rel=0.15, abs=0.02), name
    if kind is adversarial:
        assert rows[0] != rows[1]


def test_sources_and_audio_stay_float32_in_half_precision(tmp_path: Path, dataset: Path) -> None:
    run = Trainer(recipe_from(adversarial(dataset, precision="bfloat16"), "recipe"), tmp_path)
    seen: dict[str, torch.dtype] = {}
    for name in ("source", "conv_pre", "conv_post"):
        getattr(run.state.voice.generator, name).register_forward_hook(
            lambda _, given, out, name=name: seen.__setitem__(name, out.dtype)
        )
    run.train_step(quiet(run))
    assert seen == {"source": torch.float32, "conv_pre": torch.bfloat16, "conv_post": torch.float32}


def test_resolutions_and_rounds_follow_from_the_step_alone(recipe: Recipe) -> None:
    generator = nn.Module()
    generator.sample_rate, generator.hop_length, generator.mel = 16000, 128, None  # type: ignore[assignment]
    drawn = [
        losses_of_step(recipe.losses, recipe.loss_settings, generator, np.random.default_rng([0, step]))
        for step in (*range(12), 3)
    ]
    assert drawn[3] == drawn[-1]
    assert {one.wish.rounds for one in drawn} == {0, 1}
    assert len({one.context.sizes for one in drawn}) > 1
    assert all(any(name.startswith("projected/") for name in one.weights) == bool(one.wish.rounds) for one in drawn)


def _process(rank: int, contents: list[dict[str, Any]], folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    try:
        for number, content in enumerate(contents):
            try:
                Trainer(recipe_from(content, "recipe"), folder / f"two-{number}").run()
            except MelismaError as error:
                (folder / f"error-{number}-{rank}.txt").write_text(str(error))
    finally:
        dist.destroy_process_group()


def curve(folder: Path) -> list[dict[str, float]]:
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{key: row[key] for key in row if key != "seconds_a_step"} for row in rows if "loss" in row]


def test_the_loss_curve_does_not_depend_on_the_number_of_processes(tmp_path: Path, dataset: Path) -> None:
    shared = {"batch": 4, "log_every": 1, "validation": {"every": 4, "pieces": 1, "frames": 16}}
    contents = [kind(dataset, **shared) for kind in (mapping, adversarial)]
    broken = write_dataset(tmp_path / "data", 2, 1.0, broken="clip-1")
    data = {"folders": [str(broken)], "frames": 16, "balance": 0.0}
    torch.multiprocessing.spawn(_process, ([*contents, mapping(broken, data=data, bad_in_a_row=1)], tmp_path), nprocs=2)
    for rank in range(2):  # both give up, and neither waits for the other
        assert "not finite whatever the learning rate" in (tmp_path / f"error-2-{rank}.txt").read_text()
    for number, content in enumerate(contents):
        assert not list(tmp_path.glob(f"error-{number}-*"))
        Trainer(recipe_from(content, "recipe"), tmp_path / f"one-{number}").run()
        folders = [tmp_path / f"{count}-{number}" for count in ("one", "two")]
        for first, second in zip(*(curve(folder) for folder in folders), strict=True):
            assert first.keys() == second.keys()
            for name, value in first.items():
                assert second[name] == pytest.approx(value, rel=2e-4, abs=2e-4), name
        start = flat_weights(folders[0] / "S_0.pth")
        alone, together = (flat_weights(folder / "S_4.pth") for folder in folders)
        assert (together - alone).norm() < 0.02 * (alone - start).norm()
        records = [load_checkpoint(folder / "S_4.pth")["record"] for folder in folders]
        assert records[1]["best"] == pytest.approx(records[0]["best"], rel=1e-3)


def flat_weights(path: Path) -> torch.Tensor:
    content = load_checkpoint(path)
    return torch.cat([value.flatten() for part in ("voice", "judges") for value in content[part].values()])


@pytest.mark.parametrize("where", ["loss", "gradient", "discriminator"])
def test_a_step_that_is_not_finite_moves_nothing_and_names_its_clips(
    tmp_path: Path, gan: Recipe, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, where: str
) -> None:
    run = Trainer(dataclasses.replace(gan, steps=6, save_every=6), tmp_path)
    run.train_step(quiet(run))
    before = weights(run)
    moments = [state.copy() for state in run.state.optimizer.state_dict()["state"].values()]
    weight = run.state.judges["multi-period"].discriminators[0].conv_post.bias if where == "discriminator" else None
    if weight is not None:
        weight.register_hook(lambda gradient: gradient * torch.nan)
    else:
        learn = module.train_step

        def broken(state: Any, recipe: Any, batches: Any, *rest: Any) -> Any:
            bad = batches[0].reference.clone()
            if where == "loss":
                bad[0, 3] = torch.nan
            else:
                state.voice.generator.conv_pre.bias.register_hook(lambda gradient: gradient * torch.inf)
            return learn(state, recipe, [dataclasses.replace(batches[0], reference=bad)], *rest)

        monkeypatch.setattr(module, "train_step", broken)
    run.train_step(View(tmp_path, 6, False, False))
    after = {name: value for name, value in weights(run).items() if "parametrizations.weight.0" not in name}
    assert all(torch.equal(before[name], value) for name, value in after.items())
    assert same(moments, list(run.state.optimizer.state_dict()["state"].values()))
    assert (run.state.step, run.state.bad) == (2, 1)
    keys = {run.supply.plan(1, number).place.clip.key for number in range(gan.batch)}
    out = capsys.readouterr().out
    assert "step 1 is not finite" in out
    assert all(key in out.splitlines()[-1] for key in keys)


def test_several_in_a_row_go_back_lower_the_rate_and_go_on(
    tmp_path: Path, gan: Recipe, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    run, learn, broken = Trainer(gan, tmp_path), module.train_step, {"left": 3}
    rates = []

    def sometimes(state: Any, recipe: Any, batches: Any, *rest: Any) -> Any:
        if state.step >= 2 and broken["left"]:
            broken["left"] -= 1
            batches = [dataclasses.replace(batches[0], reference=batches[0].reference * torch.nan)]
        outcome = learn(state, recipe, batches, *rest)
        rates.append(state.optimizer.param_groups[0]["lr"])
        return outcome

    monkeypatch.setattr(module, "train_step", sometimes)
    run.recipe = dataclasses.replace(gan, steps=6)
    run.run()
    out = capsys.readouterr().out
    assert out.count("is not finite") == 3
    assert "back to S_2.pth with 0.5 of the learning rate" in out
    assert run.state.step == 6
    assert rates[-1] == pytest.approx(0.5 * run.recipe.optimizer.rate(5, 6))
    assert all(weight.isfinite().all() for weight in run.state.average.state_dict().values())
    assert load_checkpoint(tmp_path / "S_6.pth")["rate_scale"] == 0.5


def test_what_never_gets_finite_ends_with_the_clips_named(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = write_dataset(tmp_path / "data", 2, 1.0, broken="clip-1")
    content = mapping(
        folder, bad_in_a_row=1, data={"folders": [str(folder)], "frames": 16, "balance": 0.0, "gain_db": [0, 0]}
    )
    run = Trainer(recipe_from(content, "recipe"), tmp_path / "run")
    with pytest.raises(MelismaError, match="not finite whatever the learning rate"):
        run.run()
    out = capsys.readouterr().out
    assert out.count("back to S_0.pth") == 5
    assert all("clip-1" in line for line in out.splitlines() if "its clips" in line)
    assert [step for step, _ in find_checkpoints(tmp_path / "run", "S")] == [0]


def test_fresh_discriminators_learn_alone_at_first(tmp_path: Path, dataset: Path, gan: Recipe) -> None:
    Trainer(dataclasses.replace(gan, steps=1), tmp_path / "first").run()
    start = load_checkpoint(tmp_path / "first" / "S_1.pth")
    torch.save(start | {"judges": {}}, tmp_path / "S_1.pth")
    run = Trainer(
        dataclasses.replace(gan, start_from=str(tmp_path / "S_1.pth"), discriminator_warmup=2), tmp_path / "new"
    )
    assert run.state.warmup == 2
    before = weights(run)
    for step in range(3):
        losses = losses_of_step(gan.losses, gan.loss_settings, run.state.voice.generator, np.random.default_rng(step))
        outcome = train_step(run.state, run.recipe, run.supply.batches(step), losses)
        assert outcome.finite
        changed = {name.split("/")[0] for name in moved(before, run)}
        assert changed == ({"judges"} if step < 2 else {"judges", "voice", "average"})
