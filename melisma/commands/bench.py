"""``melisma bench``: measure the generators on this machine."""

from pathlib import Path

import torch

from melisma.benchmarking.report import Plan, check_output, measure, write
from melisma.benchmarking.subjects import check
from melisma.commands.show import progress_bar
from melisma.kernels import choice


def run(
    models: tuple[str, ...],
    threads: tuple[int, ...],
    precisions: tuple[str, ...],
    batches: tuple[int, ...],
    chunks: tuple[float, ...],
    seconds: float,
    rounds: int,
    quick: bool,
    out: Path | None,
) -> None:
    """Measure, print the tables and write them where wanted."""
    if out is not None:
        check_output(out)
    most = torch.get_num_threads()
    here = ("float32", "bfloat16") if choice.half_precision().fast else ("float32",)
    plan = Plan(
        models=check(models),
        threads=threads or ((most,) if quick else tuple(sorted({1, most}))),
        precisions=precisions or here,
        batches=batches or ((1,) if quick else (1, 4)),
        chunks=chunks or ((0.0,) if quick else (0.0, 0.25)),
        seconds=min(seconds, 1.0) if quick else seconds,
        rounds=min(rounds, 2) if quick else rounds,
        fresh=not quick,
    )
    with progress_bar("measuring") as progress:
        report = measure(plan, progress)
    print(report.markdown(), end="")
    if out is not None:
        write(report, out)
        print(f"{out}: written")
