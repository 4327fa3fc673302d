"""The front door: ``zoo VERB ...``.

Each verb is a plain typed function, named here by string and imported on use, so ``zoo --help``
answers at once. Parameters before the ``*`` of a function are positional, keyword-only ones are
options.
"""

import inspect
import sys
from collections.abc import Callable
from importlib import import_module
from inspect import Parameter
from typing import Any

VERBS = {
    "recipes": ("data_gen.commands", "list the populations that can be generated"),
    "generate": (
        "data_gen.commands",
        "train a population into a zoo; resumes what was interrupted",
    ),
    "info": ("zoo.commands", "describe a zoo"),
    "check": ("zoo.commands", "verify every stored byte of a zoo"),
    "page": ("zoo.commands", "write a zoo as one self-contained HTML page"),
    "trace": ("zoo.commands", "find and prove the symmetries of a module"),
    "convert": ("zoo.commands", "zoo to one HDF5 file, or back"),
    "train": ("neural_functionals.commands", "train a network that reads weights"),
    "evaluate": ("neural_functionals.commands", "measure a trained network on a zoo"),
}
"""Verb to the module whose function of that name runs it, and one line of help."""


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns its exit code: 0 fine, 1 damage found, 2 wrong call, 130 stopped."""
    words = sys.argv[1:] if arguments is None else arguments
    if not words or words[0] in ("-h", "--help"):
        print(_overview())
        return 0
    if words[0] == "--version":
        from zoo import __version__

        print(__version__)
        return 0
    if words[0] not in VERBS:
        return _complain("zoo", f"unknown verb {words[0]!r}. Known: {', '.join(VERBS)}.")
    return _run(words[0], words[1:])


def _run(verb: str, words: list[str]) -> int:
    from jsonargparse import ArgumentError

    from zoo.errors import ZooError

    command = getattr(import_module(VERBS[verb][0]), verb)
    try:
        return int(command(**_parse(verb, command, words)) or 0)
    except (ZooError, ArgumentError) as error:
        return _complain(f"zoo {verb}", str(error))
    except KeyboardInterrupt:
        _complain(
            f"zoo {verb}", "interrupted; what is stored is safe. Run the same command to go on."
        )
        return 130


def _parse(verb: str, command: Callable[..., Any], words: list[str]) -> dict[str, Any]:
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(prog=f"zoo {verb}", description=VERBS[verb][1], exit_on_error=False)
    parser.add_argument("--config", action="config", help="Read options from a YAML or JSON file.")
    kinds = {name: p.kind for name, p in inspect.signature(command).parameters.items()}
    options: set[str | int] = {name for name in kinds if kinds[name] is Parameter.KEYWORD_ONLY}
    leading: set[str | int] = {name for name in kinds if name not in options}
    parser.add_function_arguments(command, as_group=False, as_positional=True, skip=options)
    parser.add_function_arguments(command, as_group=False, as_positional=False, skip=leading)
    values = parser.parse_args([_underscored(word) for word in words])
    return {name: values[name] for name in kinds}


def _underscored(word: str) -> str:
    """Spell ``--input-shape`` as the parameter is spelled; values stay as they are."""
    name, equals, value = word.partition("=")
    return f"--{name[2:].replace('-', '_')}{equals}{value}" if word.startswith("--") else word


def _overview() -> str:
    width = max(map(len, VERBS))
    lines = ["usage: zoo VERB ... (zoo VERB --help for its options)", ""]
    lines += [f"  {verb:<{width}}  {text}" for verb, (_, text) in VERBS.items()]
    return "\n".join(lines)


def _complain(who: str, message: str) -> int:
    print(f"{who}: {' '.join(message.split())}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
