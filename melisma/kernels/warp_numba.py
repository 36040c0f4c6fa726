"""A recording read through a warp of time, compiled by numba; see :mod:`melisma.kernels.warp`."""

import math

from melisma.kernels.lanes_numba import compiled


@compiled
def read_warped(dense, oversampling, target, here, centres, periods, fine, out):  # type: ignore[no-untyped-def]
    """Read frames where the phase here is what the target's is there.

    Args:
        dense: the recording, ``(channels, samples)``, ``oversampling`` values a sample; position 0 is its first.
        oversampling: values a sample.
        target: phase curve of the result, ``(hop, advance, slope, cycles)``, as of ``melisma.audio.transpose``.
        here: that of the recording, and the position of its first sample, ``(hop, advance, slope, cycles, low)``.
        centres: of the frames in the result, samples, ``(frames,)``.
        periods: whole cycles that are added to the target's, ``(frames,)``.
        fine: values a sample of the frames.
        out: ``(channels, frames, values)``.
    """
    hop, advance, slope, cycles = target
    own_hop, own_advance, own_slope, own_cycles, low = here
    values = out.shape[2]
    last = own_cycles.size - 2
    for f in range(out.shape[1]):
        inside = 0
        for i in range(values):
            place = centres[f] + i / fine - values / (2.0 * fine)
            s = min(max(math.floor(place / hop + 0.5), 0), slope.size - 1)
            since = place - (s - 0.5) * hop
            phase = cycles[s] + since * (advance[s] + 0.5 * slope[s] * since) + periods[f]
            if i == 0:  # the segment by halving; from then on the phase only grows
                lower, upper = 0, last
                while lower < upper:
                    middle = (lower + upper) // 2
                    if own_cycles[1 + middle] <= phase:
                        lower = middle + 1
                    else:
                        upper = middle
                inside = min(lower, last)
            while inside < last and own_cycles[inside + 1] <= phase:
                inside += 1
            beyond, start = phase - own_cycles[inside], own_advance[inside]
            root = math.sqrt(max(start * start + 2.0 * own_slope[inside] * beyond, 0.25 * start * start))
            where = ((inside - 0.5) * own_hop + 2.0 * beyond / (start + root) - low) * oversampling
            index = math.floor(where)
            x = where - index
            for channel in range(out.shape[0]):
                row = dense[channel]
                before, first, second, after = row[index - 1], row[index], row[index + 1], row[index + 2]
                cubic = (
                    x * (3.0 * (first - second) + after - before) + 2.0 * before - 5.0 * first + 4.0 * second - after
                )
                out[channel, f, i] = first + 0.5 * x * (second - before + x * cubic)
