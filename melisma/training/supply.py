"""Batches of a run: each a pure function of the seed and the step, cut one step ahead while the last one is learned."""

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch

from melisma.errors import MelismaError
from melisma.training.batch import Batch, Features, collate, shape_of
from melisma.training.crops import Crop, Plan, cut, draw_plan, long_enough
from melisma.training.processes import rank, world_size
from melisma.training.recipe import Recipe
from melisma.training.recordings import Chances, Place, all_places, hold_out
from melisma.training.terms import asks_for_two
from melisma.training.voice import Voice


def clips_of(recipe: Recipe) -> tuple[list[Place], list[Place]]:
    """The clips to train on, and those to validate on.

    Raises:
        MelismaError: no data, or nothing that could be held out.
    """
    places = all_places(recipe.data.folders)
    if not recipe.validation.every:
        return places, []
    if recipe.validation.folders:
        return places, all_places(recipe.validation.folders)
    return hold_out(places, recipe.validation.share)


class Supply:
    """This process' share of every batch.

    Args:
        recipe: of the run.
        places: clips to train on.
        voice: what learns; its generator says what a batch must look like.
        features: of the generator.
        speakers: row of each speaker's name in the table.
        device: where to.

    Attributes:
        chances: what is drawn from.
        notes: what is worth saying about the clips.

    Raises:
        MelismaError: the batch cannot be parted among the processes, or no clip is long enough.
    """

    def __init__(
        self,
        recipe: Recipe,
        places: list[Place],
        voice: Voice,
        features: Features,
        speakers: Mapping[str, int],
        device: torch.device,
    ) -> None:
        share, rest = divmod(recipe.batch, world_size())
        if rest or share % recipe.accumulate:
            raise MelismaError(
                f"batch {recipe.batch} cannot be parted among {world_size()} processes and {recipe.accumulate} "
                "accumulated parts; take a multiple"
            )
        self.recipe, self.voice, self.features, self.speakers, self.device = recipe, voice, features, speakers, device
        self.shape = shape_of(voice.generator, features, recipe.data.frames)
        kept, short = long_enough(places, self.shape)
        self.chances = Chances(kept, recipe.data.shares)
        self.notes: list[str] = []
        if short:
            self.notes.append(f"{short} of {len(kept)} clips are shorter than a segment and are filled with silence")
        if recipe.data.balance:
            self.notes += self.chances.out_of_reach(*recipe.data.resample_range)
        self._own = range(rank() * share, (rank() + 1) * share)
        self._cutter = ThreadPoolExecutor(1)
        self._ahead: tuple[int, Future[list[Crop]]] | None = None

    def plan(self, step: int, number: int) -> Plan:
        """What chance decides about a crop of the global batch of a step."""
        rng = np.random.default_rng([self.recipe.seed, step, number])
        return draw_plan(self.chances, rng, self.recipe.data, self.shape)

    def keys(self, step: int) -> list[str]:
        """Names of the clips in the global batch of a step."""
        return sorted({self.plan(step, number).place.clip.key for number in range(self.recipe.batch)})

    def batches(self, step: int) -> list[Batch]:
        """This process' share of a step's batch, in accumulated parts."""
        ahead, self._ahead = self._ahead, None
        crops = ahead[1].result() if ahead is not None and ahead[0] == step else self._cut(step)
        if step + 1 < self.recipe.steps:
            self._ahead = (step + 1, self._cutter.submit(self._cut, step + 1))
        seeds = [_seed(self.recipe.seed, step, number) for number in self._own]
        size = len(crops) // self.recipe.accumulate
        return [self._part(crops[at : at + size], seeds[at : at + size]) for at in range(0, len(crops), size)]

    def _cut(self, step: int) -> list[Crop]:
        return [cut(self.plan(step, number), self.shape) for number in self._own]

    def _part(self, crops: list[Crop], seeds: list[int]) -> Batch:
        two = asks_for_two(self.recipe.losses, self.recipe.loss_settings)
        generator, table = self.voice.generator, self.voice.speakers
        return collate(crops, seeds, generator, self.features, self.speakers, table, self.device, two)


def _seed(*numbers: int) -> int:
    """One number from several, for draws that take one."""
    return int(np.random.default_rng([*numbers, 3]).integers(2**60))
