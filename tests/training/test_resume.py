"""A run goes on after whatever stops it as if it had never been stopped, to the last bit."""

import dataclasses
import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from small_runs import adversarial, mapping, same

from melisma.errors import MelismaError
from melisma.files import locked
from melisma.training import launch
from melisma.training import trainer as module
from melisma.training.checkpoint import find_checkpoints, load_checkpoint
from melisma.training.launch import train
from melisma.training.recipe import Recipe, recipe_from
from melisma.training.start import read_start
from melisma.training.trainer import Trainer
from melisma.training.view import View

STEPS = 8


def quiet(run: Trainer) -> View:
    return View(run.folder, run.recipe.steps, True, False)


def write(path: Path, content: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def steps_of(folder: Path) -> list[int]:
    return [step for step, _ in find_checkpoints(folder, "S")]


def killed_when(ready: Callable[[], bool], recipe: Path, folder: Path) -> None:
    """Start the run as a process of its own and kill it, without a warning, at the moment that is waited for."""
    command = [sys.executable, "-m", "melisma.training", str(recipe), str(folder)]
    process = subprocess.Popen(
        command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    deadline = time.monotonic() + 60
    while not ready() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    assert process.poll() is None, process.communicate()[0].decode()
    process.send_signal(signal.SIGKILL)
    process.communicate()


def test_a_killed_run_goes_on_bit_for_bit(tmp_path: Path, dataset: Path) -> None:
    content = adversarial(
        dataset, steps=STEPS, save_every=2, log_every=1, validation={"every": 4, "pieces": 1, "frames": 16}
    )
    recipe = write(tmp_path / "recipe.yaml", content)
    train(recipe, tmp_path / "whole")
    killed = tmp_path / "killed"
    killed_when(lambda: (killed / "S_2.pth").exists(), recipe, killed)  # somewhere in the steps behind it
    assert steps_of(killed)[-1] < STEPS
    killed_when(lambda: any(killed.glob(".S_*.part.pth")), recipe, killed)  # half a checkpoint is on the disk
    assert steps_of(killed)[-1] < STEPS
    train(recipe, killed)
    for step in steps_of(tmp_path / "whole"):
        whole, parts = (load_checkpoint(folder / f"S_{step}.pth") for folder in (tmp_path / "whole", killed))
        assert same(whole, parts), step
    assert not any(killed.glob(".S_*.part.pth"))
    rows = [json.loads(line) for line in (killed / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == list(range(1, STEPS + 1))


@pytest.mark.parametrize("kind", [mapping, adversarial])
def test_parts_and_whole_are_equal(tmp_path: Path, dataset: Path, kind: Callable[..., dict[str, Any]]) -> None:
    recipe = recipe_from(kind(dataset, ema=0.9), "recipe")
    Trainer(recipe, tmp_path / "whole").run()
    (tmp_path / "parts").mkdir()
    first = Trainer(recipe, tmp_path / "parts")
    for _ in range(3):
        first.train_step(quiet(first))
    assert first.save(quiet(first)) is None
    second = Trainer(recipe, tmp_path / "parts")
    assert second.state.step == 3
    second.run()
    assert same(*(load_checkpoint(tmp_path / name / "S_4.pth") for name in ("whole", "parts")))
    other = Trainer(dataclasses.replace(recipe, seed=1), tmp_path / "other")
    other.run()
    assert not same(*(load_checkpoint(tmp_path / name / "S_4.pth")["voice"] for name in ("whole", "other")))


@pytest.mark.parametrize("when", ["before the message", "behind it"])
def test_an_interruption_ends_with_the_step_saves_it_and_says_how_to_go_on(
    tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    run, learn = Trainer(recipe, tmp_path), module.train_step

    def interrupted(*given: Any) -> Any:
        if when == "before the message":
            signal.raise_signal(signal.SIGTERM)
            return learn(*given[:4], run.asked)
        outcome = learn(*given)
        signal.raise_signal(signal.SIGINT)
        return outcome

    monkeypatch.setattr(module, "train_step", interrupted)
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with pytest.raises(MelismaError, match="interrupted after step 1, which is saved; the same command goes on"):
        run.run()
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before
    assert steps_of(tmp_path) == [0, 1]
    monkeypatch.setattr(module, "train_step", learn)
    for folder in (tmp_path, tmp_path / "whole"):
        Trainer(recipe, folder).run()
    assert same(*(load_checkpoint(folder / "S_4.pth") for folder in (tmp_path, tmp_path / "whole")))


def test_a_second_ctrl_c_does_not_wait(tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Trainer(recipe, tmp_path)
    monkeypatch.setattr(module, "train_step", lambda *_: [signal.raise_signal(signal.SIGINT) for _ in range(2)])
    with pytest.raises(KeyboardInterrupt):
        run.run()
    assert steps_of(tmp_path) == [0]


def test_the_newest_and_the_best_are_kept(tmp_path: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = iter([5.0, 2.0, 3.0, 4.0, 4.0])
    content = mapping(dataset, steps=4, save_every=1, keep=1, validation={"every": 1, "pieces": 1, "frames": 16})
    run = Trainer(recipe_from(content, "recipe"), tmp_path)
    assert run.validation is not None
    monkeypatch.setattr(type(run.validation), "__call__", lambda *_: ({"mr-stft": next(values)}, []))
    run.run()
    assert steps_of(tmp_path) == [0, 1, 4]
    assert (run.record.best_step, run.record.worse) == (1, 3)


def test_it_stops_when_validation_gets_worse_and_names_the_best(
    tmp_path: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    values = iter([5.0, 2.0, 3.0, 3.0, 1.0])
    validation = {"every": 1, "pieces": 1, "frames": 16, "patience": 2}
    recipe = recipe_from(mapping(dataset, steps=9, validation=validation), "recipe")
    run = Trainer(recipe, tmp_path)
    monkeypatch.setattr(module.Validation, "__call__", lambda *_: ({"mr-stft": next(values)}, []))
    run.run()
    assert run.state.step == 3
    assert (
        "stopped after step 3: 2 validations in a row were worse; the best by mr-stft is S_1.pth"
        in capsys.readouterr().out
    )
    again = Trainer(recipe, tmp_path)
    again.run()
    assert again.state.step == 3
    assert "stopped after step 3" in capsys.readouterr().out


def test_a_full_disk_costs_one_checkpoint_and_not_the_run(
    tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    from melisma.training import checkpoint

    save, full = torch.save, {2}

    def filling(state: dict[str, Any], handle: Any) -> None:
        if state["step"] in full:
            raise OSError(errno.ENOSPC, "No space left on device")
        save(state, handle)

    monkeypatch.setattr(checkpoint.torch, "save", filling)
    Trainer(recipe, tmp_path / "a").run()
    assert steps_of(tmp_path / "a") == [0, 4]
    out = capsys.readouterr().out
    assert "warning: " in out
    assert "training goes on with the earlier checkpoints" in out
    full.add(4)
    with pytest.raises(MelismaError, match=r"S_4\.pth: could not be written"):
        Trainer(recipe, tmp_path / "b").run()
    assert steps_of(tmp_path / "b") == [0]


def test_a_checkpoint_of_another_recipe_says_what_differs(tmp_path: Path, recipe: Recipe) -> None:
    Trainer(recipe, tmp_path).run()
    before = (tmp_path / "recipe.json").read_text()
    other = dataclasses.replace(recipe, batch=4, optimizer=dataclasses.replace(recipe.optimizer, warmup=7))
    with pytest.raises(MelismaError, match=r"S_4\.pth: .* batch: 2 != 4; optimizer\.warmup: 2 != 7; train in another"):
        Trainer(other, tmp_path)
    assert (tmp_path / "recipe.json").read_text() == before
    assert Trainer(dataclasses.replace(recipe, steps=6), tmp_path).state.step == 4


def test_two_runs_do_not_share_a_folder(tmp_path: Path, dataset: Path) -> None:
    recipe = write(tmp_path / "recipe.yaml", mapping(dataset))
    with locked(tmp_path / "run"):
        with pytest.raises(MelismaError, match=rf"another run writes here \(process {os.getpid()} on"):
            train(recipe, tmp_path / "run")
        assert (tmp_path / "run" / "lock").exists()
    assert not (tmp_path / "run").exists()


def test_an_older_trainers_checkpoint_is_no_run_to_go_on_with_but_a_beginning(tmp_path: Path, recipe: Recipe) -> None:
    torch.save({"generator": {}, "average": {}, "step": 3}, tmp_path / "S_3.pth")
    with pytest.raises(MelismaError, match="older trainer"):
        Trainer(recipe, tmp_path)
    with pytest.raises(MelismaError, match=r"older trainer.* name the generator"):
        read_start(tmp_path / "S_3.pth")
    other = Trainer(dataclasses.replace(recipe, seed=5), tmp_path / "other").state.voice.generator.state_dict()
    torch.save({"generator": {}, "average": other, "optimizer": {}, "step": 3}, tmp_path / "S_3.pth")
    run = Trainer(dataclasses.replace(recipe, start_from=str(tmp_path / "S_3.pth")), tmp_path / "new")
    assert same(dict(run.state.average.generator.state_dict()), dict(other))


def test_a_generator_left_open_is_the_one_of_the_run(tmp_path: Path, dataset: Path, gan: Recipe) -> None:
    Trainer(gan, tmp_path / "first").run()
    open_recipe = recipe_from(
        adversarial(dataset, generator=None, start_from=str(tmp_path / "first" / "S_4.pth")), "recipe"
    )
    complete = launch.complete(open_recipe, tmp_path / "second")
    assert complete.generator == gan.generator
    Trainer(complete, tmp_path / "second").run()
    (tmp_path / "first" / "S_4.pth").unlink()  # it is not needed any more
    assert Trainer(launch.complete(open_recipe, tmp_path / "second"), tmp_path / "second").state.step == 4
