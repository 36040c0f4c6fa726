"""What is shipped of what was learned: means of weights, and a level top of the band."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from melisma.audio.mel import MelContract
from melisma.errors import MelismaError
from melisma.generators.nsf_hifigan import NsfHifigan, NsfHifiganConfig
from melisma.generators.spectral import Spectral, SpectralConfig
from melisma.interop import load_checkpoint, save_model

SCRIPT = Path(__file__).parent.parent.parent / "recipes" / "finish.py"
MEL = MelContract(sample_rate=16000, n_fft=512, win_length=512, hop_length=128, n_mels=40, fmin=40.0, fmax=7000.0)
BINS = 129


def write(path: Path, seed: int, **settings: int) -> Spectral:
    torch.manual_seed(seed)
    model = Spectral(SpectralConfig(MEL, n_fft=256, channels=8, blocks=1, expansion=1, **settings))
    save_model(path, model, name="small", version="1.0", licence="MIT")
    return model


@pytest.fixture(scope="module")
def finish() -> ModuleType:
    spec = importlib.util.spec_from_file_location("finish", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_mean_of_two_and_a_level_top(tmp_path: Path) -> None:
    first, second = (write(tmp_path / f"{seed}.safetensors", seed) for seed in (1, 2))
    out = tmp_path / "out.safetensors"
    given = [f"{tmp_path / '1.safetensors'}=1", f"{tmp_path / '2.safetensors'}=3"]
    command = [sys.executable, str(SCRIPT), *given, "-o", str(out), "--version", "1.1", "--level-from", "7000"]
    subprocess.run(command, check=True)
    made = load_checkpoint(out)
    assert (made.name, made.version, made.licence) == ("small", "1.1", "MIT")
    wanted = 0.25 * first.entry.weight + 0.75 * second.entry.weight
    torch.testing.assert_close(made.generator.entry.weight, wanted, rtol=1e-3, atol=1e-5)
    head = 0.25 * first.head.weight + 0.75 * second.head.weight
    for prior in (0, BINS):
        top = made.generator.head.weight[prior + 112 : prior + BINS]  # from 7000 Hz on
        assert torch.equal(top, top[:1].expand_as(top))
        torch.testing.assert_close(top[0], head[prior + 104 : prior + 112].mean(dim=0), rtol=1e-3, atol=1e-6)
        kept = slice(prior, prior + 112)
        torch.testing.assert_close(made.generator.head.weight[kept], head[kept], rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(made.generator.head.weight[2 * BINS :], head[2 * BINS :], rtol=1e-3, atol=1e-6)


def test_a_model_without_bins_is_only_averaged(tmp_path: Path) -> None:
    settings = NsfHifiganConfig(
        sample_rate=8000, in_channels=6, upsample_rates=(4, 4), upsample_kernel_sizes=(8, 8),
        upsample_initial_channel=16, resblock_kernel_sizes=(3,), resblock_dilation_sizes=((1, 3),),
    )  # fmt: skip
    path, out = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    save_model(path, NsfHifigan(settings), name="nsf")
    subprocess.run([sys.executable, str(SCRIPT), str(path), "-o", str(out)], check=True)
    before, after = (load_checkpoint(name).generator.state_dict() for name in (path, out))
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, rtol=1e-3, atol=1e-4)


def test_what_has_no_mean_is_named(tmp_path: Path, finish: ModuleType) -> None:
    write(tmp_path / "a.safetensors", 1)
    write(tmp_path / "b.safetensors", 1, settles=0)
    models = [load_checkpoint(tmp_path / f"{name}.safetensors") for name in "ab"]
    with pytest.raises(MelismaError, match="different settings"):
        finish.mean_of(models, [1.0, 1.0])
    with pytest.raises(MelismaError, match="add up to 0"):
        finish.mean_of(models[:1], [0.0])
    with pytest.raises(MelismaError, match="not 8 bins below"):
        finish.level(models[0].generator, 100.0)


@pytest.mark.parametrize("given", ["missing.safetensors", "missing.safetensors=0.5", "a=b"])
def test_bad_input_is_one_line(given: str, tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), given, "-o", str(tmp_path / "out.safetensors")]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 1
    assert ended.stderr.startswith("finish: ")
    assert ended.stderr.count("\n") == 1
    assert not (tmp_path / "out.safetensors").exists()
