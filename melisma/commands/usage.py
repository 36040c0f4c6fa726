"""Arguments to a command that is ready to be run, and wrong ones to one line.

tyro says what is wrong in a box of several lines, with the help of what it is about. Here a line is enough: every other
error of melisma is one, and programs that call it read them line by line.
"""

import io
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from functools import partial, wraps
from typing import Any

import tyro

_RULE = re.compile(r"^[─-]+$")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def parse(
    commands: dict[str, Callable[..., None]], program: str, description: str, arguments: Sequence[str]
) -> Callable[[], None]:
    """What the arguments ask for.

    Args:
        commands: by name.
        program: what the user called.
        description: for its help.
        arguments: what stood behind it.

    Raises:
        SystemExit: 0 after help was asked for and printed, 2 after a line on stderr about wrong arguments.
    """
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            chosen: Callable[[], None] = tyro.extras.subcommand_cli_from_dict(
                {name: _later(command) for name, command in commands.items()},
                prog=program,
                description=description,
                args=list(arguments),
            )
    except SystemExit as stop:
        if stop.code and said.getvalue():
            command = next((f"{program} {word}" for word in arguments[:1] if word in commands), program)
            print(f"error: {in_one_line(said.getvalue(), command)}", file=sys.stderr)
        raise
    sys.stderr.write(said.getvalue())  # a warning, if anything
    return chosen


def _later(command: Callable[..., None]) -> Callable[..., Callable[[], None]]:
    """The command with its arguments, not yet run."""

    @wraps(command)
    def ready(*args: Any, **kwargs: Any) -> Callable[[], None]:
        return partial(command, *args, **kwargs)

    return ready


def in_one_line(box: str, command: str) -> str:
    """What a box of tyro's says, and where to read more.

    Args:
        box: a title, in its upper edge or above all, and parts between rules; drawn or, where the terminal cannot,
            in plain characters.
        command: what the user called.
    """
    lines = [line.strip("│╭╮╰╯").rstrip() for line in _COLOUR.sub("", box).splitlines()]
    title = lines[0].strip("─- ") if lines else ""
    parts = _parts(lines[1:])
    if not parts:
        return _joined(lines)
    said, others = _joined(parts[0]), parts[1:]
    if title == "Required options":
        # Names stand further to the right than the sentence before them, and their help further than they.
        indents = sorted({_indent(line) for line in parts[0]})
        names = [line.strip() for line in parts[0] if _indent(line) in indents[1:2]]
        said = f"missing: {', '.join(names)}" if names else said
    elif title == "Unrecognized options" and others:
        said = said.replace("Unrecognized options:", "unknown:")
        first, *rest = others[0]
        if first.strip() == "Perhaps you meant:" and rest:
            said = f"{said}; did you mean {rest[0].strip()}?"
        elif not first.strip().startswith("For full helptext"):
            said = f"{said}; {_joined(others[0]).replace('Available', 'available')}"
    said = said.removeprefix("Error parsing ").rstrip(".")
    return f"{said} See {command} --help" if said.endswith("?") else f"{said}; see {command} --help"


def _parts(lines: Sequence[str]) -> list[list[str]]:
    """What stands between rules."""
    parts: list[list[str]] = [[]]
    for line in lines:
        if _RULE.match(line.strip()):
            parts.append([])
        elif line.strip():
            parts[-1].append(line)
    return [part for part in parts if part]


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _joined(lines: Sequence[str]) -> str:
    return " ".join(line.strip() for line in lines)
