"""Checkpoints: saved whole or not at all, found, pruned, refused."""

import json
import resource
from pathlib import Path

import pytest
import torch

from melisma.errors import MelismaError
from melisma.training.checkpoint import (
    checkpoint_path,
    find_checkpoints,
    latest_checkpoint,
    load_checkpoint,
    prune_checkpoints,
    save_checkpoint,
    save_config,
)

STATE = {"model": {"weight": torch.arange(6.0).reshape(2, 3)}, "iteration": 7, "learning_rate": 1e-4}


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_save_and_load_are_equal(tmp_path: Path) -> None:
    path = checkpoint_path(tmp_path, "G", 30400)
    save_checkpoint(path, STATE)
    back = load_checkpoint(path)
    torch.testing.assert_close(back["model"]["weight"], STATE["model"]["weight"])
    assert (back["iteration"], back["learning_rate"]) == (7, 1e-4)
    assert names(tmp_path) == {"G_30400.pth"}


def test_optimizer_state_comes_back(tmp_path: Path) -> None:
    layer = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    save_checkpoint(tmp_path / "G_1.pth", {"model": layer.state_dict(), "optimizer": optimizer.state_dict()})
    torch.optim.AdamW(layer.parameters()).load_state_dict(load_checkpoint(tmp_path / "G_1.pth")["optimizer"])


def test_latest_goes_by_the_number_not_the_letters(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path) is None
    for name in ("G_800.pth", "G_10000.pth", "G_9999.pth", "G_0.pth", "D_20000.pth", "G_x.pth", "config.json"):
        (tmp_path / name).touch()
    (tmp_path / "G_99999.pth").mkdir()
    (tmp_path / ".G_30000.ab12.part.pth").touch()
    assert [step for step, _ in find_checkpoints(tmp_path)] == [0, 800, 9999, 10000]
    assert latest_checkpoint(tmp_path) == tmp_path / "G_10000.pth"
    assert latest_checkpoint(tmp_path, "D") == tmp_path / "D_20000.pth"
    (tmp_path / "g_02500000").touch()
    assert latest_checkpoint(tmp_path, "g") == tmp_path / "g_02500000"


def test_pruning_keeps_the_newest_and_step_zero(tmp_path: Path) -> None:
    for step in (0, 200, 1000, 1200, 300):
        for prefix in "GD":
            checkpoint_path(tmp_path, prefix, step).touch()
    (tmp_path / "other.txt").touch()
    assert prune_checkpoints(tmp_path, 0) == []
    removed = prune_checkpoints(tmp_path, 2)
    assert {path.name for path in removed} == {"G_200.pth", "G_300.pth", "D_200.pth", "D_300.pth"}
    assert names(tmp_path) == {f"{p}_{s}.pth" for p in "GD" for s in (0, 1000, 1200)} | {"other.txt"}
    assert prune_checkpoints(tmp_path, 5) == []
    with pytest.raises(MelismaError, match="keep"):
        prune_checkpoints(tmp_path, -1)


def test_full_disk_leaves_earlier_checkpoints_untouched(tmp_path: Path) -> None:
    path = tmp_path / "G_1.pth"
    save_checkpoint(path, STATE)
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for target in (path, tmp_path / "G_2.pth"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
        try:
            with pytest.raises(MelismaError, match="free some space") as caught:
                save_checkpoint(target, {"model": torch.zeros(100_000)})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert str(target) in str(caught.value)
        assert "\n" not in str(caught.value)
    assert path.read_bytes() == before
    assert names(tmp_path) == {"G_1.pth"}


class Evil:
    def __reduce__(self) -> tuple:
        return (print, ("this must never run",))


def test_bad_checkpoints_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"model": Evil()}, tmp_path / "G_1.pth")
    save_checkpoint(tmp_path / "G_2.pth", {"model": torch.zeros(1000)})
    (tmp_path / "G_2.pth").write_bytes((tmp_path / "G_2.pth").read_bytes()[:2000])
    (tmp_path / "G_3.pth").write_text("hello")
    (tmp_path / "G_4.pth").touch()
    torch.save([1, 2], tmp_path / "G_5.pth")
    for number, words in enumerate(["no such", "refused", "damaged", "refused|damaged", "damaged", "holds a list"]):
        with pytest.raises(MelismaError, match=words) as caught:
            load_checkpoint(tmp_path / f"G_{number}.pth")
        assert f"G_{number}.pth" in str(caught.value)
    assert "never run" not in capsys.readouterr().out


def test_config_is_saved_beside_the_run(tmp_path: Path) -> None:
    path = save_config(tmp_path / "logs" / "44k", {"name": "mélisma", "steps": 3})
    assert json.loads(path.read_text(encoding="utf-8")) == {"name": "mélisma", "steps": 3}
    assert names(path.parent) == {"config.json"}
