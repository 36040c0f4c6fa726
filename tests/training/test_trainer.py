"""The trainer: it learns, goes on bit by bit as if never stopped, agrees between processes, and says what is wrong."""

import dataclasses
import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
import yaml

from melisma.audio.mel import OPENVPI_44K, MelContract
from melisma.config import to_mapping
from melisma.data.corpus import Source, build_corpus
from melisma.data.singer import random_phrase
from melisma.errors import MelismaError
from melisma.generators.spectral import SpectralConfig
from melisma.training import trainer as module
from melisma.training.checkpoint import find_checkpoints, load_checkpoint
from melisma.training.recipe import main, read_recipe
from melisma.training.trainer import Recipe, Trainer, draw_batch, learning_rate

MEL = MelContract(sample_rate=16000, n_fft=512, win_length=512, hop_length=128, n_mels=24, fmin=40.0, fmax=8000.0)
TINY = SpectralConfig(mel=MEL, n_fft=256, subframes=2, projections=1, channels=8, blocks=1, expansion=2)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")

    def clips():
        for number in range(3):
            audio, f0_hz = random_phrase(np.random.default_rng(number), 1.5, 120.0, 400.0, 16000, 128)
            yield Source(f"clip-{number}", "made", audio, 8000.0, f0_hz)

    build_corpus(folder, clips(), 16000, 128)
    return folder


@pytest.fixture
def recipe(corpus: Path) -> Recipe:
    return Recipe(
        generator=TINY,
        corpora=(str(corpus),),
        shares={"made": 1.0},
        steps=4,
        batch=2,
        frames=16,
        warmup=2,
        resolutions=(128, 256, 512),
        projections=(0, 1),
        save_every=2,
    )


def weights(run: Trainer) -> dict[str, torch.Tensor]:
    """Everything that a run must carry on: weights, their average and the optimizer's moments."""
    both = {
        f"{name}.{key}": value
        for name in ("generator", "average")
        for key, value in getattr(run, name).state_dict().items()
    }
    moments = {
        f"{number}.{key}": torch.as_tensor(value)
        for number, state in run.optimizer.state_dict()["state"].items()
        for key, value in state.items()
    }
    return both | moments


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def write(path: Path, recipe: Recipe, **changes: Any) -> Path:
    mapping = json.loads(json.dumps(to_mapping(recipe))) | changes
    path.write_text(yaml.safe_dump(mapping))
    return path


@pytest.mark.parametrize("repulsion", [0.0, 1.0])
def test_two_steps_train(tmp_path: Path, recipe: Recipe, repulsion: float) -> None:
    recipe = dataclasses.replace(recipe, repulsion=repulsion, projections=(1,))
    run = Trainer(recipe, tmp_path)
    before = {name: value.clone() for name, value in run.generator.state_dict().items()}
    rows = [run.train_step() for _ in range(2)]
    assert all(set(row) == {"unprojected", "projected", "gradient"} for row in rows)
    assert all(np.isfinite(value) for row in rows for value in row.values())
    assert all(not torch.equal(before[name], value) for name, value in run.generator.state_dict().items())
    assert run.step == 2


def test_the_causal_form_trains(tmp_path: Path, recipe: Recipe) -> None:
    causal = dataclasses.replace(TINY, n_fft=128, subframes=4, causal=True, draft=False, projections=0)
    run = Trainer(dataclasses.replace(recipe, generator=causal, projections=(0,)), tmp_path)
    before = {name: value.clone() for name, value in run.generator.state_dict().items()}
    assert all(np.isfinite(value) for _ in range(2) for value in run.train_step().values())
    assert all(not torch.equal(before[name], value) for name, value in run.generator.state_dict().items())


def test_the_loss_falls_on_one_batch(tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    fixed = dataclasses.replace(
        recipe, repulsion=0.0, projections=(0,), resolutions=(256,), resolutions_a_step=1, steps=200
    )
    run = Trainer(fixed, tmp_path)
    batch = draw_batch(run.corpus, fixed, 0, 0)
    monkeypatch.setattr(module, "draw_batch", lambda *_: batch)
    losses = [run.train_step()["unprojected"] for _ in range(24)]
    assert np.mean(losses[-4:]) < 0.97 * np.mean(losses[:4])


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(tmp_path: Path, recipe: Recipe) -> None:
    whole = Trainer(recipe, tmp_path / "whole")
    whole.run()
    first = Trainer(recipe, tmp_path / "parts")
    for _ in range(3):
        first.train_step()
    first.save()
    second = Trainer(recipe, tmp_path / "parts")
    assert second.step == 3
    second.run()
    assert same(weights(whole), weights(second))
    assert [step for step, _ in find_checkpoints(tmp_path / "whole", "S")] == [2, 4]
    assert [step for step, _ in find_checkpoints(tmp_path / "parts", "S")] == [3, 4]
    state = load_checkpoint(tmp_path / "whole" / "S_4.pth")
    assert set(state) == {"generator", "average", "optimizer", "step"}
    assert json.loads((tmp_path / "whole" / "recipe.json").read_text())["steps"] == 4


def test_an_interruption_ends_with_the_step_and_saves_it(
    tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Trainer(recipe, tmp_path)
    terms = module.loss_terms
    monkeypatch.setattr(module, "loss_terms", lambda *given: (signal.raise_signal(signal.SIGTERM), terms(*given))[1])
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(MelismaError, match="interrupted after step 1, which is saved"):
        run.run()
    assert signal.getsignal(signal.SIGTERM) is before
    assert [step for step, _ in find_checkpoints(tmp_path, "S")] == [1]
    monkeypatch.setattr(module, "loss_terms", terms)
    run, whole = Trainer(recipe, tmp_path), Trainer(recipe, tmp_path / "whole")
    run.run()
    whole.run()
    assert same(weights(run), weights(whole))


def _process(rank: int, recipe: Recipe, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    run = Trainer(recipe, folder / "run")
    terms = module.loss_terms
    try:
        run.run()
        torch.save(weights(run), folder / f"{rank}.pth")
        # A loss that is not finite on one process ends both, and neither waits for the other.
        run.recipe = dataclasses.replace(recipe, steps=9)
        module.loss_terms = lambda *given: {name: value / rank for name, value in terms(*given).items()}
        try:
            run.run()
        except MelismaError as error:
            (folder / f"{rank}.txt").write_text(str(error))
    finally:
        dist.destroy_process_group()


def test_two_processes_hold_the_same_weights(tmp_path: Path, recipe: Recipe) -> None:
    recipe = dataclasses.replace(recipe, steps=2, batch=1)
    torch.multiprocessing.spawn(_process, (recipe, tmp_path), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pth") for rank in range(2))
    assert same(first, second)
    alone = Trainer(recipe, tmp_path / "alone")
    alone.run()
    assert not same(weights(alone), first)  # the other process drew other crops
    assert all("step 2 is not finite" in (tmp_path / f"{rank}.txt").read_text() for rank in range(2))
    assert [step for step, _ in find_checkpoints(tmp_path / "run", "S")] == [2]


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_what_is_not_finite_stops_before_it_reaches_the_weights(
    tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, where: str
) -> None:
    run = Trainer(recipe, tmp_path)
    run.train_step()
    run.save()
    before = {name: value.clone() for name, value in weights(run).items()}
    bad = torch.tensor(0.0, requires_grad=True)

    def terms(generator: Any, *_: Any) -> dict[str, torch.Tensor]:
        value = generator.head.bias.sum()
        return {"unprojected": value * torch.inf if where == "loss" else (value - value.detach() + bad).sqrt()}

    monkeypatch.setattr(module, "loss_terms", terms)
    with pytest.raises(MelismaError, match="gradient of step 1 is not finite"):
        run.run()
    assert same(weights(run), before)
    assert [step for step, _ in find_checkpoints(tmp_path, "S")] == [1]
    assert main([str(write(tmp_path / "recipe.yaml", recipe)), str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: the loss or the gradient of step 1")
    assert error.count("\n") == 1


def test_a_batch_belongs_together(tmp_path: Path, recipe: Recipe) -> None:
    run = Trainer(recipe, tmp_path)
    batch = draw_batch(run.corpus, recipe, 0, 0)
    again, other = draw_batch(run.corpus, recipe, 0, 0), draw_batch(run.corpus, recipe, 0, 1)
    assert batch.reference.shape == (2, 16 * 128)
    assert batch.features.shape == (2, 24, 16)
    assert batch.f0_hz.shape == (2, 16)
    assert batch.band_hz.shape == (2,)
    assert torch.equal(batch.features, again.features)
    assert not torch.equal(batch.features, other.features)


def test_a_new_run_starts_from_averaged_weights(tmp_path: Path, recipe: Recipe) -> None:
    first = Trainer(recipe, tmp_path / "first")
    first.run()
    start = dataclasses.replace(recipe, start_from=str(tmp_path / "first" / "S_4.pth"))
    second = Trainer(start, tmp_path / "second")
    assert second.step == 0
    for name, value in first.average.state_dict().items():
        assert torch.equal(second.generator.state_dict()[name], value)
        assert torch.equal(second.average.state_dict()[name], value)
    second.run()
    assert not same(weights(first), weights(second))
    assert Trainer(start, tmp_path / "second").step == 4  # its own checkpoint comes first


def test_the_learning_rate_rises_and_falls(recipe: Recipe) -> None:
    recipe = dataclasses.replace(recipe, steps=100, warmup=10)
    rates = [learning_rate(recipe, step) for step in range(101)]
    assert rates[0] == pytest.approx(1e-4)
    assert rates[10] == max(rates) == pytest.approx(1e-3)
    assert rates[100] == pytest.approx(1e-5)
    assert np.all(np.diff(rates[10:]) < 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batchsize": 3}, r"recipe\.yaml: unknown key 'batchsize'; did you mean 'batch'"),
        ({"generator": to_mapping(TINY) | {"chanels": 3}}, "generator: unknown key 'chanels'; did you mean 'channels'"),
        ({"generator": to_mapping(TINY) | {"mel": to_mapping(MEL) | {"hop": 3}}}, "generator: mel: unknown key 'hop'"),
        ({"batch": "many"}, r"recipe\.yaml: batch: "),
        ({"steps": 0}, "steps is 0"),
        ({"resolutions_a_step": 4}, "resolutions_a_step is 4"),
        ({"projections": []}, r"projections \(\)"),
        ({"corpora": ["nowhere"]}, r"nowhere holds no corpus .*recipes/corpus\.py"),
        ({"start_from": "nothing.pth"}, r"nothing\.pth: no such checkpoint"),
        ({"generator": to_mapping(dataclasses.replace(TINY, mel=OPENVPI_44K, n_fft=1024))}, r"\(16000, 128\) and the"),
    ],
)
def test_a_bad_recipe_is_one_clear_line(
    tmp_path: Path, recipe: Recipe, capsys: pytest.CaptureFixture, changes: dict[str, Any], message: str
) -> None:
    path = write(tmp_path / "recipe.yaml", recipe, **changes)
    with pytest.raises(MelismaError, match=message):
        Trainer(read_recipe(path), tmp_path / "run")
    assert main([str(path), str(tmp_path / "run")]) == 1
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


def test_a_checkpoint_of_another_model_is_refused_and_nothing_overwritten(tmp_path: Path, recipe: Recipe) -> None:
    Trainer(recipe, tmp_path).run()
    before = (tmp_path / "recipe.json").read_text()
    wider = dataclasses.replace(recipe, generator=dataclasses.replace(TINY, channels=12))
    with pytest.raises(MelismaError, match=r"S_4\.pth: not a checkpoint of this recipe's generator"):
        Trainer(wider, tmp_path)
    assert (tmp_path / "recipe.json").read_text() == before


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml")), ids=lambda path: path.name
)
def test_the_committed_recipes_are_read(path: Path) -> None:
    assert read_recipe(path).generator.mel == OPENVPI_44K
