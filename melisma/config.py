"""Strict conversion between mappings (JSON, YAML, file headers) and frozen dataclasses.

Every configuration of melisma is a frozen dataclass that stands beside the class that it configures. It is read here
and nowhere else, so that an unknown key, a missing one and a wrong type are reported in one way.
"""

import dataclasses
import difflib
import typing
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

from melisma.errors import MelismaError

T = TypeVar("T")
MOST_FAULTS = 3  # that one line names


def suggest(word: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the known word nearest to ``word``, or an empty string."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""


def lookup(table: Mapping[str, T], name: str, what: str) -> T:
    """Return ``table[name]``; an unknown name is an error that lists the known ones."""
    if name not in table:
        raise MelismaError(f"unknown {what} {name!r}; known: {', '.join(table)}{suggest(name, table)}")
    return table[name]


def from_mapping(cls: type[T], mapping: Mapping[str, Any], what: str) -> T:
    """Build the frozen dataclass ``cls`` from a mapping.

    ``what`` names the origin (a file, say) in errors. Unknown keys, missing keys and values of a wrong type raise
    ``MelismaError``, at any depth; lists become tuples where the field says so.
    """
    from pydantic import TypeAdapter, ValidationError

    check_keys(cls, mapping, what)
    try:
        return TypeAdapter(cls).validate_python(dict(mapping))
    except ValidationError as error:
        faults: dict[str, str] = {}  # of a field that may be one thing or another only the first
        for fault in error.errors():
            place = [str(part) for part in fault["loc"]]
            faults.setdefault(".".join(place[:1]), f"{'.'.join(place)}: {fault['msg']}")
        raise MelismaError(f"{what}: {_listed(list(faults.values()))}") from error


def check_keys(cls: type, mapping: Mapping[str, Any], what: str) -> None:
    """Refuse keys that the dataclass ``cls``, or a dataclass in one of its fields, does not have.

    pydantic passes over them in standard dataclasses.
    """
    faults = list(_unknown_keys(cls, mapping, ""))
    if faults:
        alone = f" Known: {', '.join(faults[0][1])}" if len(faults) == 1 else ""
        raise MelismaError(f"{what}: {_listed([said for said, _ in faults])}{alone}")


def _unknown_keys(cls: type, mapping: Mapping[str, Any], where: str) -> Iterator[tuple[str, list[str]]]:
    """What is to be said of every unknown key, and the known ones."""
    kinds = typing.get_type_hints(cls)
    known = [field.name for field in dataclasses.fields(cls) if field.init]
    for key, value in mapping.items():
        if key not in known:
            yield f"{where}unknown key {key!r}{suggest(str(key), known)}", known
            continue
        for kind in (kinds[key], *typing.get_args(kinds[key])):
            if isinstance(value, Mapping) and isinstance(kind, type) and dataclasses.is_dataclass(kind):
                yield from _unknown_keys(kind, value, f"{where}{key}: ")


def _listed(faults: list[str]) -> str:
    """Some faults in one line."""
    more = len(faults) - MOST_FAULTS
    return ", and ".join(faults[:MOST_FAULTS]) + (f", and {more} more" if more > 0 else "")


def to_mapping(config: Any) -> dict[str, Any]:
    """Return the dataclass as a mapping that JSON can hold; the inverse of :func:`from_mapping`."""
    return dataclasses.asdict(config)
