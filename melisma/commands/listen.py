"""``melisma listen``: a page with versions of recordings side by side."""

from collections.abc import Sequence
from pathlib import Path

from melisma.commands.show import progress_bar
from melisma.errors import MelismaError
from melisma.evaluation.clips import find_clips
from melisma.evaluation.listen import Singer, compare, singers, world_singer
from melisma.evaluation.page import CONTROLS, section_html, write_page
from melisma.inference.files import check_output


def run(
    paths: Sequence[Path],
    out: Path,
    models: Sequence[str],
    shifts: Sequence[float],
    longest: float,
    projections: int | None,
    world: bool,
    small: bool,
) -> None:
    """Make the page and say what is on it."""
    if out.suffix.lower() not in (".html", ".htm"):
        raise MelismaError(f"{out}: the page is one .html file; name it so")
    check_output(out)
    known, rate = singers(models, projections)
    voices: list[Singer] = [*([world_singer()] if world else []), *known]
    clips = []
    for path in paths:
        found, skipped = find_clips(path, rate, longest)
        clips += found
        for one in skipped:
            print(f"skipped: {one.name}: {one.reason}")
    if not clips:
        raise MelismaError("nothing to listen to; name recordings, or a folder of them")
    parts = []
    with progress_bar("singing") as progress:
        for number, (clip, shift) in enumerate((clip, shift) for clip in clips for shift in shifts):
            section = compare(clip, voices, shift)
            parts.append(section_html(section, rate, ".opus" if small else ".flac"))
            progress((number + 1) / (len(clips) * len(shifts)))
    write_page(out, "melisma: listen", "\n".join([CONTROLS, *parts]))
    names = ", ".join(["original", *(voice.name for voice in voices)])
    print(f"{out}: {len(parts)} parts, {names}; {out.stat().st_size / 1e6:.1f} MB; open it in a browser")
