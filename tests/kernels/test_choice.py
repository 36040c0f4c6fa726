"""What is chosen on which machine, and that it is said."""

import sys

import numpy as np
import pytest
import torch

from melisma.cli import main
from melisma.inference import vocoder
from melisma.kernels import choice, snake
from melisma.layers.activations import AntiAliased, SnakeBeta


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch):
    decisions = (
        choice.convolutions,
        choice.snake,
        choice.projection,
        choice.gpu_snake,
        choice.bfloat16,
        choice.half_precision,
        choice.filtering,
        choice.tiles,
        choice.backbone,
        choice.bfloat16_convolutions,
        choice.cpu_features,
    )
    for decision in decisions:
        decision.cache_clear()
    yield
    monkeypatch.undo()
    for decision in decisions:
        decision.cache_clear()


def test_without_numba_the_plain_snake_sings_and_info_says_why(monkeypatch, capsys) -> None:
    activation, x = AntiAliased(SnakeBeta(3)), torch.randn(1, 3, 20)
    expected = activation(x)
    choice.snake.cache_clear()
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.setattr(choice.importlib.util, "find_spec", lambda name: None)
    assert not snake.fused(x)
    torch.testing.assert_close(activation(x), expected, rtol=0, atol=5e-6)
    assert main(["info", "--system"]) == 0
    assert "snake: torch (numba is not installed: pip install numba)" in capsys.readouterr().out


def test_without_onednn_the_plain_convolutions_are_taken(monkeypatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert choice.convolutions() == choice.Choice("torch", False, "this torch was built without oneDNN")
    assert not choice.bfloat16().fast


@pytest.mark.parametrize(
    ("features", "chosen"),
    [
        ((), "float32"),
        (("avx512-bf16",), "bfloat16"),
        (("avx512", "avx512-bf16"), "float32"),  # minimal filtering is faster
        (("avx512", "avx512-bf16", "amx"), "float32"),  # streams equal the whole
    ],
)
def test_auto_means_bfloat16_where_the_cpu_has_it(features, chosen, monkeypatch) -> None:
    from test_nsf_hifigan import made

    monkeypatch.setattr(choice, "cpu_features", lambda: features)
    if "amx" in features and not choice.tiles().fast:
        pytest.skip(choice.tiles().why)
    convolutional, cpu = made("plain"), torch.device("cpu")
    if chosen == "bfloat16" and not choice.bfloat16_convolutions().fast:
        pytest.skip(choice.bfloat16_convolutions().why)
    assert vocoder._precision("auto", convolutional, cpu) == chosen
    assert vocoder._precision("auto", torch.nn.Identity(), cpu) == "float32"
    assert vocoder._precision("float32", convolutional, cpu) == "float32"


def test_backbones_are_float32_with_and_without_tiles(monkeypatch) -> None:
    monkeypatch.setattr(choice, "cpu_features", lambda: ("avx512",))
    assert choice.backbone().path == "numba"
    assert choice.backbone().fast


def test_bfloat16_without_instructions_is_done_and_warned_of(monkeypatch) -> None:
    monkeypatch.setattr(choice, "cpu_features", lambda: ())
    from test_nsf_hifigan import made

    convolutional, cpu = made("plain"), torch.device("cpu")
    with pytest.warns(UserWarning, match="slower than float32 here: this CPU has no instructions"):
        assert vocoder._precision("bfloat16", convolutional, cpu) == "bfloat16"


@pytest.mark.parametrize(("name", "why"), [("analytic", ""), ("melisma-44k", ": this CPU has no amx")])
def test_spectral_models_without_tiles_are_computed_in_float32(name: str, why: str, monkeypatch) -> None:
    """Transforms cannot be had in bfloat16, and what is not multiplied in tiles is no faster in it."""
    monkeypatch.setattr(choice, "cpu_features", lambda: ("avx512",))
    with pytest.warns(UserWarning, match=f"this kind of model is computed in float32, not in bfloat16{why}$"):
        model = vocoder.load(name, precision="bfloat16")
    assert model.precision == "float32"
    tone = 0.3 * np.sin(2 * np.pi * 220.0 * np.arange(22050) / 44100).astype(np.float32)
    assert np.isfinite(model.resynthesize(tone, 44100, shift_semitones=3)).all()


@pytest.mark.parametrize("features", [("avx2",), ("avx512", "avx512-bf16")])
def test_without_amx_half_precision_is_filtered(features, monkeypatch, recwarn) -> None:
    from test_nsf_hifigan import made

    monkeypatch.setattr(choice, "cpu_features", lambda: features)
    if not choice.filtering().fast:
        pytest.skip(choice.filtering().why)
    assert choice.half_precision().path == "winograd"
    assert vocoder._precision("bfloat16", made("plain"), torch.device("cpu")) == "bfloat16"
    assert not recwarn.list


@pytest.mark.parametrize("lacking", ["numba", "compiler", "permission"])
def test_amx_that_cannot_be_used_is_left_to_onednn(lacking: str, monkeypatch) -> None:
    monkeypatch.setattr(choice, "cpu_features", lambda: ("avx512", "avx512-bf16", "amx"))
    monkeypatch.setattr(choice, "_compiled_with", lambda *features: lacking != "compiler")
    monkeypatch.setattr(choice.amx, "permitted", lambda: lacking != "permission")
    if lacking == "numba":
        monkeypatch.setattr(choice.importlib.util, "find_spec", lambda name: None)
    assert not choice.tiles().fast
    assert choice.half_precision().path != "amx"
    monkeypatch.setattr(choice, "_compiled_with", lambda *features: True)
    monkeypatch.setattr(choice.amx, "permitted", lambda: True)
    choice.tiles.cache_clear()
    if lacking != "numba":
        assert choice.half_precision.__wrapped__() == choice.tiles()


def test_info_needs_a_model_or_the_system(capsys) -> None:
    assert main(["info"]) == 2
    assert capsys.readouterr().err == "error: info: name a model, or ask for --system\n"
    assert main(["info", "--system"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"torch {torch.__version__} on ")
    assert {line.split(":")[0] for line in lines[3:]} == set(choice.choices())
