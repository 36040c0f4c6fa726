"""Where a run begins: ours, foreign, with and without discriminators; the latent of so-vits-svc; what is published."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from small_runs import HOP, RATE, adversarial, same
from sovits_files import LATENT, SPEAKER, write_sovits
from torch import Tensor

from melisma.discriminators import MultiPeriod, MultiScale
from melisma.errors import MelismaError
from melisma.generators.nsf_hifigan import NsfHifigan, NsfHifiganConfig
from melisma.interop import load_checkpoint as load_model
from melisma.interop.bigvgan import _RENAMES
from melisma.interop.posterior import load_posterior
from melisma.interop.state import COMMON, foreign_name
from melisma.layers.weight_norm import fold, split
from melisma.training import launch
from melisma.training import trainer as module
from melisma.training.checkpoint import load_checkpoint
from melisma.training.credits import provenance_of
from melisma.training.publish import publish
from melisma.training.recipe import Recipe, recipe_from
from melisma.training.start import read_start
from melisma.training.trainer import Trainer, rows_of

NARROW = {"multi-period": {"periods": [2], "width": 1 / 32}, "multi-scale": {"width": 1 / 16}}
HIFIGAN = {
    "resblock": "1", "upsample_rates": [8, 4, 4], "upsample_kernel_sizes": [16, 8, 8], "upsample_initial_channel": 16,
    "resblock_kernel_sizes": [3], "resblock_dilation_sizes": [[1, 3, 5]], "sampling_rate": RATE, "num_mels": 24,
    "n_fft": 512, "win_size": 512, "hop_size": HOP, "fmin": 40, "fmax": 8000,
}  # fmt: skip
FOREIGN = {
    "openvpi": HIFIGAN | {"mini_nsf": False, "pc_aug": True},
    "mini": HIFIGAN | {"mini_nsf": True},
    "hifi-gan": HIFIGAN,
    "bigvgan": HIFIGAN | {"activation": "snakebeta", "snake_logscale": True, "use_tanh_at_final": False},
}


def folded_state(kind: str) -> dict[str, Tensor]:
    """A foreign state dict of the kind: ours under the foreign names."""
    source = {"openvpi": "harmonic", "mini": "mini"}.get(kind, "none")
    config = NsfHifiganConfig(
        sample_rate=RATE, in_channels=24, upsample_rates=(8, 4, 4), upsample_kernel_sizes=(16, 8, 8),
        upsample_initial_channel=16, resblock_kernel_sizes=(3,), resblock_dilation_sizes=((1, 3, 5),), source=source,
        activation="snakebeta" if kind == "bigvgan" else "leaky-relu", activation_before_upsampling=kind != "bigvgan",
    )  # fmt: skip
    torch.manual_seed(0)
    state = fold(NsfHifigan(config)).state_dict()
    return {foreign_name(name, _RENAMES if kind == "bigvgan" else COMMON): value for name, value in state.items()}


def normed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same weights as ``weight_g`` and ``weight_v``."""
    new = {}
    for name, value in state.items():
        if name.endswith(".weight") and value.ndim == 3 and "noise_convs" not in name and "source_conv" not in name:
            gain, direction = split(value)
            new |= {name + "_g": gain, name + "_v": direction}
        else:
            new[name] = value
    return new


def write_foreign(folder: Path, kind: str, judges: bool) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(FOREIGN[kind]))
    state = normed(folded_state(kind))
    periods, scales = MultiPeriod((2,), 1 / 32).state_dict(), MultiScale(1 / 16).state_dict()
    if kind in ("openvpi", "mini"):
        states = {f"generator.{name}": value for name, value in state.items()}
        if judges:
            states |= {f"discriminator.mpd.{name}": value for name, value in periods.items()}
            states |= {f"discriminator.msd.{name}": value for name, value in scales.items()}
        torch.save({"state_dict": states}, folder / "model.ckpt")
        return folder / "model.ckpt"
    torch.save({"generator": state}, folder / "g_00000100")
    if judges:
        torch.save({"mpd": periods, "msd": scales, "steps": 100}, folder / "do_00000100")
    return folder / "g_00000100"


def finetune(dataset: Path, start: Path, **changes: Any) -> Recipe:
    return recipe_from(
        adversarial(dataset, generator=None, start_from=str(start), discriminators=NARROW, steps=2, save_every=1)
        | changes,
        "recipe",
    )


@pytest.mark.parametrize("judges", [True, False])
@pytest.mark.parametrize("kind", FOREIGN)
def test_foreign_checkpoints_train_on(tmp_path: Path, dataset: Path, kind: str, judges: bool) -> None:
    path = write_foreign(tmp_path / "foreign", kind, judges)
    recipe = launch.complete(finetune(dataset, path, discriminator_warmup=1), tmp_path / "run")
    run = Trainer(recipe, tmp_path / "run")
    assert run.state.warmup == (0 if judges else 1)
    (batch,) = run.supply.batches(0)
    theirs = load_model(path).generator
    with torch.no_grad():
        given = (batch.features, batch.f0_hz, None, batch.draws.first)
        torch.testing.assert_close(run.state.voice.generator(*given), theirs(*given), rtol=1e-3, atol=1e-4)
    if judges:
        wanted = torch.load(path.with_name("do_00000100") if kind in ("hifi-gan", "bigvgan") else path)
        state = wanted.get("mpd") or {
            name.removeprefix("discriminator.mpd."): value
            for name, value in wanted["state_dict"].items()
            if name.startswith("discriminator.mpd.")
        }
        mine = run.state.judges["multi-period"].state_dict()
        assert all(torch.equal(mine[name], value) for name, value in state.items())
    else:
        assert any("fresh discriminators: multi-period (none in or beside" in note for note in run.notes)
    run.run()
    assert run.state.step == 2
    published = publish(tmp_path / "run", tmp_path / "out.safetensors")
    assert (published.name, published.checkpoint.name) == ("run", "S_2.pth")
    out = load_model(tmp_path / "out.safetensors").generator
    average = fold(run.state.average.generator).eval()
    with torch.no_grad():
        torch.testing.assert_close(out(*given), average(*given))


def test_discriminators_that_do_not_fit_begin_fresh_and_it_is_said(tmp_path: Path, dataset: Path) -> None:
    path = write_foreign(tmp_path / "foreign", "openvpi", True)
    recipe = finetune(dataset, path, discriminators={"multi-period": {"periods": [2, 3], "width": 1 / 32}})
    run = Trainer(launch.complete(recipe, tmp_path / "run"), tmp_path / "run")
    assert any("multi-period (these weights do not fit MultiPeriod: missing" in note for note in run.notes)
    assert run.state.warmup == 500


def test_our_own_run_and_model_train_on(tmp_path: Path, dataset: Path, gan: Recipe) -> None:
    Trainer(gan, tmp_path / "first").run()
    publish(tmp_path / "first", tmp_path / "first.safetensors")
    first = load_checkpoint(tmp_path / "first" / "S_4.pth")
    for start, warmup in ((tmp_path / "first" / "S_4.pth", 0), (tmp_path / "first.safetensors", 500)):
        second = Trainer(dataclasses.replace(gan, start_from=str(start)), tmp_path / "second")
        assert (second.state.step, second.state.warmup) == (0, warmup)
        average = dict(first["average"])
        theirs = second.state.average.state_dict()
        if warmup == 0:
            assert same(average, dict(theirs))
            assert same(first["judges"], dict(second.state.judges.state_dict()))
        (batch,) = second.supply.batches(0)
        given = (batch.features, batch.f0_hz, None, batch.draws.first)
        with torch.no_grad():
            made = second.state.voice.generator(*given)
            second.state.voice.load_state_dict(first["average"])
            torch.testing.assert_close(made, second.state.voice.generator(*given), rtol=1e-3, atol=1e-5)


def test_another_models_checkpoint_says_what_differs(tmp_path: Path, dataset: Path, gan: Recipe) -> None:
    path = write_foreign(tmp_path / "foreign", "openvpi", False)
    with pytest.raises(MelismaError, match=r"resblock_dilation_sizes .*; leave 'generator' out"):
        Trainer(dataclasses.replace(gan, start_from=str(path)), tmp_path / "run")
    with pytest.raises(MelismaError, match="no such model or file"):
        read_start(tmp_path / "nothing.pth")


def reference_posterior(state: dict[str, Tensor], audio: Tensor, speaker: Tensor, noise: Tensor) -> Tensor:
    """VITS' posterior encoder as its paper and so-vits-svc have it, from the weights' names alone."""
    padded = F.pad(audio[:, None], (192, 192), mode="reflect")[:, 0]
    spectrum = torch.stft(padded, 512, HOP, window=torch.hann_window(512), center=False, return_complex=True)
    x = F.conv1d((spectrum.abs() ** 2 + 1e-6).sqrt(), state["pre.weight"], state["pre.bias"])
    condition = F.conv1d(speaker, state["enc.cond_layer.weight"], state["enc.cond_layer.bias"])
    total = torch.zeros_like(x)
    for layer in range(16):
        weight, bias = (state[f"enc.in_layers.{layer}.{part}"] for part in ("weight", "bias"))
        both = F.conv1d(x, weight, bias, padding=2) + condition[:, 16 * layer : 16 * (layer + 1)]
        gated = torch.tanh(both[:, :8]) * torch.sigmoid(both[:, 8:])
        weight, bias = (state[f"enc.res_skip_layers.{layer}.{part}"] for part in ("weight", "bias"))
        out = F.conv1d(gated, weight, bias)
        if layer < 15:
            x, total = x + out[:, :8], total + out[:, 8:]
        else:
            total = total + out
    stats = F.conv1d(total, state["proj.weight"], state["proj.bias"])
    return stats[:, :LATENT] + noise * torch.exp(stats[:, LATENT:])


@torch.no_grad()
def test_the_posterior_encoder_is_so_vits_svcs(tmp_path: Path) -> None:
    path = write_sovits(tmp_path)
    encoder = load_posterior(path)
    state = dict(encoder.state_dict())
    audio, speaker = torch.randn(2, 30 * HOP) * 0.1, torch.randn(2, SPEAKER, 1)
    noise = torch.randn(2, LATENT, 30)
    made = encoder(audio, speaker, noise)
    assert made.shape == (2, LATENT, 30)
    torch.testing.assert_close(made, reference_posterior(state, audio, speaker, noise), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        encoder(audio, speaker), reference_posterior(state, audio, speaker, noise * 0), rtol=1e-4, atol=1e-5
    )
    assert encoder.halo_frames >= 34
    spelled = torch.load(path)
    spelled["model"] = {
        key: value
        for name, weight in spelled["model"].items()
        for key, value in (
            zip((name + "_g", name + "_v"), split(weight), strict=True)
            if name.startswith("enc_q.enc.") and name.endswith("weight")
            else [(name, weight)]
        )
    }
    torch.save(spelled, path)
    torch.testing.assert_close(load_posterior(path)(audio, speaker, noise), made, rtol=1e-4, atol=1e-5)


def test_a_so_vits_svc_decoder_trains_on(tmp_path: Path, dataset: Path) -> None:
    path = write_sovits(tmp_path, discriminators=True)
    judges = {"single-scale": {"width": 1 / 32}, "multi-period": {"periods": [2], "width": 1 / 32}}
    recipe = launch.complete(finetune(dataset, path, discriminators=judges), tmp_path / "run")
    run = Trainer(recipe, tmp_path / "run")
    assert run.state.warmup == 0
    theirs = torch.load(path.with_name("D_30.pth"))["model"]
    mine = run.state.judges["multi-period"].state_dict()
    assert torch.equal(mine["discriminators.0.conv_post.bias"], theirs["discriminators.1.conv_post.bias"])
    assert run.speakers == {"anna": 1, "ben": 2}
    table = torch.load(path)["model"]["emb_g.weight"]
    assert run.state.voice.speakers is not None
    assert torch.equal(run.state.voice.speakers.weight[1], table[1])
    torch.testing.assert_close(run.state.voice.speakers.weight[2], table.mean(dim=0))
    (batch,) = run.supply.batches(0)
    assert batch.features.shape == (2, LATENT, 16)
    before = run.state.voice.speakers.weight.detach().clone()
    run.run()
    assert not torch.equal(run.state.voice.speakers.weight, before)
    publish(tmp_path / "run", tmp_path / "voice.safetensors")
    loaded = load_model(tmp_path / "voice.safetensors")
    assert loaded.speaker_names == {"anna": 1, "ben": 2}
    assert loaded.speakers is not None
    assert torch.equal(loaded.speakers, run.state.average.speakers.weight)


def test_a_voice_without_its_encoder_is_refused(tmp_path: Path, dataset: Path) -> None:
    path = write_sovits(tmp_path)
    content = torch.load(path)
    content["model"] = {name: value for name, value in content["model"].items() if not name.startswith("enc_q.")}
    torch.save(content, path)
    recipe = launch.complete(finetune(dataset, path), tmp_path / "run")
    with pytest.raises(MelismaError, match=r"no posterior encoder .* training checkpoint"):
        Trainer(recipe, tmp_path / "run")
    with pytest.raises(MelismaError, match=r"decodes the latent .* start_from the so-vits-svc"):
        Trainer(dataclasses.replace(recipe, start_from=None), tmp_path / "run")


def test_speakers_keep_their_rows() -> None:
    assert rows_of(["b", "a"], {}) == {"b": 0, "a": 1}
    assert rows_of(["a", "c"], {"a": 4, "b": 0}) == {"a": 4, "b": 0, "c": 5}
    assert rows_of([""], {"anna": 3}) == {"": 3}


def test_publishing_takes_the_best_and_says_who_it_is(
    tmp_path: Path, dataset: Path, gan: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = iter([5.0, 1.0, 3.0])
    about = {"name": "anna", "version": "2.1", "licence": "CC0", "provenance": "made", "f0_range_hz": [60, 900]}
    recipe = recipe_from(
        adversarial(dataset, about=about, validation={"every": 2, "pieces": 1, "frames": 16}), "recipe"
    )
    monkeypatch.setattr(module.Validation, "__call__", lambda *_: ({"mr-stft": next(values)}, []))
    Trainer(recipe, tmp_path / "run").run()
    published = publish(tmp_path / "run", tmp_path / "a.safetensors", half=True)
    assert (published.checkpoint.name, published.best) == ("S_2.pth", True)
    loaded = load_model(tmp_path / "a.safetensors")
    assert (loaded.name, loaded.version, loaded.licence, loaded.provenance) == ("anna", "2.1", "CC0", "made")
    assert loaded.f0_range_hz == (60.0, 900.0)
    assert published.step == 2
    newest = publish(tmp_path / "run" / "S_4.pth", tmp_path / "b.safetensors", name="other")
    assert (newest.name, newest.step, newest.best) == ("other", 4, False)
    with pytest.raises(MelismaError, match=r"a checkpoint of melisma train; make a model of it: melisma export model"):
        load_model(tmp_path / "run" / "S_4.pth")
    for wrong, words in ((tmp_path, "no run"), (tmp_path / "nowhere", "no run")):
        with pytest.raises(MelismaError, match=words):
            publish(wrong, tmp_path / "c.safetensors")


def test_the_shipped_model_trains_on_by_its_name(tmp_path: Path) -> None:
    start = read_start("melisma-44k")
    assert start.config == load_model(start.path).generator.config
    with pytest.raises(MelismaError, match="analytic has no weights to train"):
        read_start("analytic")
    with pytest.raises(MelismaError, match="did you mean 'melisma-44k'"):
        read_start("melisma-44")


def test_licences_of_the_data_are_the_provenance(tmp_path: Path, dataset: Path, gan: Recipe) -> None:
    table = "key,licence,credit\na,CC0,\nb,CC0,\nc,CC BY 4.0,Anna Ö\nd,,\n"
    (tmp_path / "manifest.csv").write_text(table, encoding="utf-8")
    said = provenance_of([str(dataset), str(tmp_path)])
    assert said == ("Trained on 4 clips: CC0 (2 clips); Anna Ö, CC BY 4.0 (1 clip); licence not stated (1 clip).")
    assert provenance_of([str(dataset)]) == ""
    run = Trainer(dataclasses.replace(gan, steps=1), tmp_path / "run")
    run.facts = dataclasses.replace(run.facts, data_provenance=said)
    run.run()
    publish(tmp_path / "run", tmp_path / "a.safetensors")
    assert load_model(tmp_path / "a.safetensors").provenance == said
