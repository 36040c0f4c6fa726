"""Mel loss."""

from torch import Tensor

from melisma.audio.mel import MelContract, log_mel


def mel_loss(generated: Tensor, reference: Tensor, mel: MelContract) -> Tensor:
    """L1 distance of the log-mels, a scalar in units of the contract's logarithm.

    Args:
        generated: audio ``(batch, samples)`` or ``(batch, 1, samples)``.
        reference: audio of the same shape.
        mel: the contract; its full band (``fmax=None``) is usual in training.
    """
    made, real = (log_mel(audio.flatten(0, -2), mel) for audio in (generated, reference))
    return (made - real).abs().mean()
