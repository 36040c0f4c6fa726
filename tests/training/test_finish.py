"""What is shipped of what was learned: means of weights, and bridges over bins."""

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


def test_the_mean_of_two_with_a_bridge(tmp_path: Path) -> None:
    first, second = (write(tmp_path / f"{seed}.safetensors", seed) for seed in (1, 2))
    out = tmp_path / "out.safetensors"
    given = [f"{tmp_path / '1.safetensors'}=1", f"{tmp_path / '2.safetensors'}=3"]
    command = [sys.executable, str(SCRIPT), *given, "-o", str(out), "--version", "1.1", "--bridge", "6000", "6500"]
    subprocess.run(command, check=True)
    made = load_checkpoint(out)
    assert (made.name, made.version, made.licence) == ("small", "1.1", "MIT")
    wanted = 0.25 * first.entry.weight + 0.75 * second.entry.weight
    torch.testing.assert_close(made.generator.entry.weight, wanted, rtol=1e-3, atol=1e-5)
    head = 0.25 * first.head.weight + 0.75 * second.head.weight
    for prior in (0, BINS):
        made_rows, rows = (weight[prior : prior + BINS] for weight in (made.generator.head.weight, head))
        for kept in (slice(0, 96), slice(104, BINS)):  # 6000 Hz is bin 96, 6500 bin 104
            torch.testing.assert_close(made_rows[kept], rows[kept], rtol=1e-3, atol=1e-6)
        below, above = rows[88:96].mean(dim=0), rows[104:112].mean(dim=0)
        for number, row in enumerate(made_rows[96:104], 1):
            torch.testing.assert_close(row, below + (above - below) * number / 9, rtol=2e-3, atol=1e-5)
    torch.testing.assert_close(made.generator.head.weight[2 * BINS :], head[2 * BINS :], rtol=1e-3, atol=1e-6)


def test_one_settling_more_believes_what_it_is_told_to(tmp_path: Path, finish: ModuleType) -> None:
    before, out = write(tmp_path / "a.safetensors", 1), tmp_path / "out.safetensors"
    command = [sys.executable, str(SCRIPT), str(tmp_path / "a.safetensors"), "-o", str(out)]
    subprocess.run([*command, "--settle", "0.6", "--average", "0.25"], check=True)
    made = load_checkpoint(out).generator
    assert isinstance(made, Spectral)
    assert (made.config.settles, made.config.settles_alone, made.config.settle_average) == (1, 1, 0.25)
    old = before.head.out_features
    torch.testing.assert_close(made.head.weight[:old], before.head.weight, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(
        2.0 * torch.sigmoid(made.head(torch.randn(3, 8))[:, old:]), torch.full((3, 80), 0.6), rtol=0, atol=1e-3
    )
    for belief in (0.0, 2.0):
        with pytest.raises(MelismaError, match="more than 0 and less than 2"):
            finish.settled(before, belief, None)
    undrafted = write(tmp_path / "b.safetensors", 1, draft=False)
    with pytest.raises(MelismaError, match="hears no draft"):
        finish.settled(undrafted, 0.5, None)


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
    for low, high in ((100.0, 7000.0), (7000.0, 6000.0), (7000.0, 7000.0)):
        with pytest.raises(MelismaError, match="give two frequencies"):
            finish.bridge(models[0].generator, low, high)


def test_up_to_the_end_it_says_what_it_says_below(tmp_path: Path, finish: ModuleType) -> None:
    model = write(tmp_path / "a.safetensors", 1)
    below = model.head.weight[BINS + 104 : BINS + 112].mean(dim=0)
    with torch.inference_mode():
        finish.bridge(model, 7000.0, 8000.0)
    assert torch.allclose(model.head.weight[BINS + 112 : 2 * BINS], below.expand(17, -1))


@pytest.mark.parametrize("given", ["missing.safetensors", "missing.safetensors=0.5", "a=b"])
def test_bad_input_is_one_line(given: str, tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), given, "-o", str(tmp_path / "out.safetensors")]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 1
    assert ended.stderr.startswith("finish: ")
    assert ended.stderr.count("\n") == 1
    assert not (tmp_path / "out.safetensors").exists()
