"""How far the samples of the NSF-HiFi-GAN family reach: the receptive field, from the settings."""

import math
from typing import TYPE_CHECKING

from melisma.layers.activations import REACH
from melisma.layers.residual import RESIDUAL_BLOCKS

if TYPE_CHECKING:
    from melisma.generators.nsf_hifigan import NsfHifiganConfig

END_KERNEL = 7  # of the first and the last convolution


def _widest_block(config: "NsfHifiganConfig") -> int:
    block = RESIDUAL_BLOCKS[config.resblock]
    shapes = zip(config.resblock_kernel_sizes, config.resblock_dilation_sizes, strict=True)
    return max(block.reach(kernel, dilations, config.is_anti_aliased) for kernel, dilations in shapes)


def halo_frames(config: "NsfHifiganConfig") -> int:
    """Frames on either side of a frame on which its audio depends.

    Going back from the audio: how far a sample reaches at each rate, through residual blocks, excitation and
    upsampling.
    """
    per_activation = REACH if config.is_anti_aliased else 0
    reach = END_KERNEL // 2 + per_activation
    frames = 0
    for stage in reversed(range(len(config.upsample_rates))):
        rate, kernel = config.upsample_rates[stage], config.upsample_kernel_sizes[stage]
        reach += _widest_block(config)
        if config.source != "none":
            # The excitation reaches two of its steps further, and mini-NSF looks at the next frame's F0.
            frames = max(frames, math.ceil((reach + 2) * config.remaining(stage) / config.hop_length) + 1)
        reach = math.ceil((reach + kernel - 1) / rate)
        if config.activation_before_upsampling:
            reach += per_activation
    return max(frames, reach + END_KERNEL // 2)


def lookahead_samples(config: "NsfHifiganConfig") -> int:
    """Samples of audio that wait for later frames in a stream.

    Going from the features to the audio: how far behind its input each layer is.
    """
    per_activation = REACH if config.is_anti_aliased else 0
    waiting = END_KERNEL // 2
    for stage, (rate, kernel) in enumerate(zip(config.upsample_rates, config.upsample_kernel_sizes, strict=True)):
        if config.activation_before_upsampling:
            waiting += per_activation
        first = 0 if config.source == "none" else config.first_sample(stage)
        waiting = waiting * rate + (kernel - rate) // 2 + first + _widest_block(config)
    return waiting + per_activation + END_KERNEL // 2
