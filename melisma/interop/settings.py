"""Reading foreign configurations: the generator's settings strictly, the training settings not at all."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from melisma.audio.mel import MelContract
from melisma.errors import MelismaError

_KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}


class Settings:
    """A foreign mapping that is read by name and type.

    Args:
        mapping: the mapping.
        what: names its origin in errors.
        ignored: names that may stand in it and do not concern the generator.
    """

    def __init__(self, mapping: Mapping[str, Any], what: str, ignored: Iterable[str] = ()) -> None:
        if not isinstance(mapping, Mapping):
            raise MelismaError(f"{what}: expected a mapping of settings, not {type(mapping).__name__}")
        self.mapping = mapping
        self.what = what
        self.documented = frozenset(ignored)
        self.read: set[str] = set()

    def _raw(self, name: str, required: bool) -> Any:
        self.read.add(name)
        value = self.mapping.get(name)
        if value is None and required:
            near = difflib.get_close_matches(name, [str(key) for key in self.mapping], n=1, cutoff=0.85)
            hint = f"; is {near[0]!r} meant?" if near else ""
            raise MelismaError(f"{self.what}: the setting {name!r} is missing{hint}")
        return value

    def _bad(self, name: str, value: Any, wanted: str) -> MelismaError:
        return MelismaError(f"{self.what}: {name} must be {wanted}, not {value!r}")

    def _convert(self, name: str, value: Any, kind: type) -> Any:
        # JSON written by hand or by YAML tools has 1.0 for 1 and "1" for 1; both are read, anything else is refused.
        try:
            if kind is bool:
                if isinstance(value, bool) or value in (0, 1):
                    return bool(value)
            elif kind is str:
                if isinstance(value, str):
                    return value
            elif not isinstance(value, bool) and kind(value) == float(value):
                return kind(value)
        except (TypeError, ValueError, OverflowError):
            pass
        raise self._bad(name, value, _KINDS[kind])

    def integer(self, name: str, default: int | None = None) -> int:
        """A whole number; without a default it must be there."""
        value = self._raw(name, required=default is None)
        return default if value is None and default is not None else self._convert(name, value, int)

    def number(self, name: str, default: float | None = None) -> float:
        """A number; without a default it must be there."""
        value = self._raw(name, required=default is None)
        return default if value is None and default is not None else self._convert(name, value, float)

    def flag(self, name: str, default: bool = False) -> bool:
        """True or false; missing means the default."""
        value = self._raw(name, required=False)
        return default if value is None else self._convert(name, value, bool)

    def choice(self, name: str, choices: Iterable[str], default: str | None = None) -> str:
        """One of some texts; a number counts as its text."""
        value = self._raw(name, required=default is None)
        text = default if value is None and default is not None else str(value)
        if text not in list(choices):
            raise self._bad(name, value, " or ".join(repr(choice) for choice in choices))
        return text

    def integers(self, name: str) -> tuple[int, ...]:
        """A list of whole numbers, at least one."""
        value = self._raw(name, required=True)
        if not isinstance(value, list | tuple) or not value:
            raise self._bad(name, value, "a list of whole numbers")
        return tuple(self._convert(name, item, int) for item in value)

    def integer_lists(self, name: str) -> tuple[tuple[int, ...], ...]:
        """A list of lists of whole numbers."""
        value = self._raw(name, required=True)
        if not isinstance(value, list | tuple) or not all(isinstance(row, list | tuple) for row in value):
            raise self._bad(name, value, "a list of lists of whole numbers")
        return tuple(tuple(self._convert(name, item, int) for item in row) for row in value)

    def unread(self) -> list[str]:
        """The names that nothing asked for and no documentation knows; a near miss of a read one is an error."""
        rest = [str(key) for key in self.mapping if key not in self.read and key not in self.documented]
        missing = [name for name in self.read if name not in self.mapping]
        for key in rest:
            near = difflib.get_close_matches(key, missing, n=1, cutoff=0.8)
            if near:
                raise MelismaError(f"{self.what}: unknown setting {key!r}; did you mean {near[0]!r}?")
        return rest


MEL_NAMES = ("num_mels", "n_fft", "win_size", "fmin", "fmax")


def mel_contract(settings: Settings, hop_length: int, magnitude_epsilon: float, padding: str) -> MelContract | None:
    """The mel contract of a vocoder whose config has HiFi-GAN's names; ``None`` where the config leaves it open."""
    if any(settings.mapping.get(name) is None for name in ("num_mels", "n_fft", "win_size", "fmin")):
        settings.read.update(MEL_NAMES)
        return None
    fmax = settings.number("fmax", -1.0)
    return MelContract(
        sample_rate=settings.integer("sampling_rate"),
        n_fft=settings.integer("n_fft"),
        win_length=settings.integer("win_size"),
        hop_length=hop_length,
        n_mels=settings.integer("num_mels"),
        fmin=settings.number("fmin"),
        fmax=None if fmax < 0 else fmax,
        magnitude_epsilon=magnitude_epsilon,
        padding=padding,  # type: ignore[arg-type]
    )


def network(settings: Settings, state_names: Iterable[str]) -> dict[str, Any]:
    """The settings that all formats share, under our names.

    The type of the residual blocks is read off the weights where they tell: the references take ``"1"`` (a text) for
    type 1 and anything else, also the number 1, for type 2, and configs have both.
    """
    resblock = 1 if settings.choice("resblock", ("1", "2"), default="1") == "1" else 2
    names = list(state_names)
    kinds = [kind for kind, part in ((1, ".convs1."), (2, ".convs.")) if any(part in name for name in names)]
    if len(kinds) == 1:
        resblock = kinds[0]
    steps = 3 if resblock == 1 else 2  # the references use so many dilations, however many are listed
    return {
        "upsample_rates": settings.integers("upsample_rates"),
        "upsample_kernel_sizes": settings.integers("upsample_kernel_sizes"),
        "upsample_initial_channel": settings.integer("upsample_initial_channel"),
        "resblock": resblock,
        "resblock_kernel_sizes": settings.integers("resblock_kernel_sizes"),
        "resblock_dilation_sizes": tuple(row[:steps] for row in settings.integer_lists("resblock_dilation_sizes")),
    }
