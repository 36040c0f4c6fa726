"""What a run shows: rows that JSON reads, lines or a bar, validation against the start, TensorBoard's files."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from small_runs import RATE, adversarial, mapping

from melisma.cli import main
from melisma.errors import MelismaError
from melisma.training.launch import main as process_main
from melisma.training.recipe import recipe_from
from melisma.training.trainer import Trainer
from melisma.training.validation import Record, ValidationSettings
from melisma.training.view import View

VALIDATION = {"every": 2, "pieces": 2, "frames": 16}


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]


def test_the_log_has_losses_rate_and_validation(tmp_path: Path, dataset: Path, capsys: pytest.CaptureFixture) -> None:
    run = Trainer(recipe_from(adversarial(dataset, log_every=2, validation=VALIDATION), "recipe"), tmp_path)
    run.run()
    log = rows(tmp_path)
    losses = [row for row in log if "loss" in row]
    assert [row["step"] for row in losses] == [2, 4]
    assert {
        "mel",
        "least-squares",
        "feature-matching",
        "discriminator/multi-period",
        "gradient",
        "learning_rate",
    } <= set(losses[0])
    assert losses[-1]["learning_rate"] == pytest.approx(run.recipe.optimizer.rate(3, 4))
    validated = [row for row in log if "validation" in row]
    assert [row["step"] for row in validated] == [0, 2, 4]
    assert set(validated[0]["validation"]) == {"mel", "multi-scale-mel", "mr-stft"}
    out = capsys.readouterr().out
    assert "step 4 of 4: " in out
    assert "(start " in out
    assert "trained 4 steps; the best by mr-stft is S_" in out


def test_validation_is_the_same_each_time_and_judges_the_average(tmp_path: Path, dataset: Path) -> None:
    run = Trainer(recipe_from(mapping(dataset, validation=VALIDATION), "recipe"), tmp_path)
    assert run.validation is not None
    (first, pieces), (second, _) = run.validation(run.state.average), run.validation(run.state.average)
    assert first == second
    assert all(np.isfinite(value) for value in first.values())
    assert [piece.generated.shape for piece in pieces] == [(16 * 128,)] * 2
    kept = {place.clip.key for place in run.supply.chances.places}
    assert not kept & {piece.key for piece in pieces}
    run.state.average.generator.head.bias.data.add_(0.5)
    assert run.validation(run.state.average)[0] != first


def test_what_is_best_and_when_it_is_enough() -> None:
    settings, record = ValidationSettings(metric="mel", patience=2), Record()
    outcomes = [record.add(step, {"mel": value}, settings) for step, value in enumerate((3.0, 2.0, 2.0, 2.5, 1.0))]
    assert outcomes == [True, True, False, False, True]
    assert (record.start, record.best, record.best_step, record.stopped) == ({"mel": 3.0}, {"mel": 1.0}, 4, False)
    record.add(5, {"mel": 9.0}, settings)
    assert not record.stopped
    record.add(6, {"mel": 9.0}, settings)
    assert record.stopped


def test_a_terminal_gets_a_bar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR", "1")
    with View(tmp_path, 10, False, False) as view:
        for step in range(6, 11):
            view.step(step, 0.5)
        view.note(10, "[done]")
    out = capsys.readouterr().out
    assert "loss 0.5000" in out
    assert "10/10" in out
    assert "[done]" in out


def test_rows_that_a_run_makes_again_are_taken_back(tmp_path: Path) -> None:
    view = View(tmp_path, 10, False, False)
    for step in (1, 2, 3):
        view.row(step, [{"loss": 1.0}, {"loss": float("nan")}], 0.1)
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    view.forget_after(2)
    assert [(row["step"], row["loss"]) for row in rows(tmp_path)] == [(1, 1.0), (2, 1.0)]


def test_tensorboard_holds_losses_metrics_audio_and_pictures(tmp_path: Path, dataset: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    recipe = recipe_from(mapping(dataset, log_every=2, validation=VALIDATION), "recipe")
    Trainer(recipe, tmp_path, board=True).run()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    tags = events.Tags()
    assert {"training/loss", "validation/mr-stft", "validation over start/mel"} <= set(tags["scalars"])
    assert events.Scalars("validation over start/mel")[0].value == pytest.approx(1.0)
    assert [event.step for event in events.Scalars("validation/mel")] == [0, 2, 4]
    audio = [tag for tag in tags["audio"] if tag.endswith("/now")]
    assert len(audio) == 2
    assert events.Audio(audio[0])[-1].sample_rate == RATE
    assert any(tag.endswith("recording, at the start, now") for tag in tags["images"])


def test_a_run_that_goes_on_still_compares_with_its_start(tmp_path: Path, dataset: Path) -> None:
    pytest.importorskip("tensorboard")
    recipe = recipe_from(mapping(dataset, validation=VALIDATION), "recipe")
    first = Trainer(recipe, tmp_path)
    first.run()
    again = Trainer(recipe, tmp_path, board=True)
    before = {name: value.clone() for name, value in again.state.average.state_dict().items()}
    assert again.validation is not None
    start = again._sung_at_the_start()
    now = again.validation(again.state.average)[1]
    assert all(not np.array_equal(one.generated, other.generated) for one, other in zip(start, now, strict=True))
    assert all((again.state.average.state_dict()[name] == value).all() for name, value in before.items())


def test_tensorboard_that_is_missing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MelismaError, match=r"pip install 'melisma\[tensorboard\]'"):
        View(tmp_path, 1, False, True)
    View(tmp_path, 1, True, True)  # a process that shows nothing does not need it


def test_the_command_takes_settings_and_says_what_it_did(
    tmp_path: Path, dataset: Path, capsys: pytest.CaptureFixture
) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(mapping(dataset)))
    assert main(["train", str(path), str(tmp_path / "a"), "--steps", "1", "--data.frames=12"]) == 0
    assert json.loads((tmp_path / "a" / "recipe.json").read_text())["data"]["frames"] == 12
    assert "trained 1 steps" in capsys.readouterr().out
    assert process_main([str(path), str(tmp_path / "b"), "--steps", "1"]) == 0
    assert main(["train", str(path), str(tmp_path / "a"), "--stesp", "1"]) == 1
    assert "unknown key 'stesp'; did you mean 'steps'" in capsys.readouterr().err
    assert main(["train", str(path), str(tmp_path / "a"), "--steps"]) == 1
    assert "--steps: give a value" in capsys.readouterr().err
    assert process_main([str(path), str(tmp_path / "b"), "--steps"]) == 1
