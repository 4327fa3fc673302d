"""The front door: ``zoo VERB ...``.

Each verb is a plain typed function, named here by string and imported on use, so ``zoo --help``
answers at once. Parameters before the ``*`` of a function are positional, keyword-only ones are
options.
"""

import inspect
import sys
from collections.abc import Callable, Collection, Iterator
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
    "check": ("zoo.store.commands", "verify every stored byte of a zoo; --repair mends it"),
    "publish": ("zoo.store.commands", "copy a finished zoo to S3 or a folder, verified"),
    "measure": ("zoo.measures.commands", "measure stored networks: Hessian, connectivity, CKA ..."),
    "card": ("zoo.commands", "describe every population as a data card, in Markdown"),
    "split": ("zoo.commands", "freeze a split into train, validation and test"),
    "repack": ("zoo.commands", "write a zoo again in another tier: hot, compact or archive"),
    "page": ("zoo.commands", "write a zoo as one self-contained HTML page"),
    "trace": ("zoo.commands", "find and prove the symmetries of a module"),
    "convert": ("zoo.convert.commands", "other people's networks to a zoo, or a zoo to a file"),
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
    except BrokenPipeError:  # whoever reads has seen enough, as `zoo recipes | head`
        sys.stdout = None  # type: ignore[assignment]
        return 0
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
    parameters = inspect.signature(command).parameters
    flags = {name for name in kinds if parameters[name].annotation is bool}
    spelled = [_underscored(word, kinds) for word in words]
    values = parser.parse_args(list(_with_values(spelled, flags)))
    return {name: values[name] for name in kinds}


def _with_values(words: list[str], flags: Collection[str]) -> Iterator[str]:
    """Let ``--repair`` alone mean ``--repair=true``."""
    for word, after in zip(words, [*words, ""][1:], strict=True):
        alone = word.removeprefix("--") in flags and after not in ("true", "false")
        yield f"{word}=true" if alone and word.startswith("--") else word


def _underscored(word: str, known: Collection[str]) -> str:
    """Spell ``--input-shape`` and ``--from`` as parameters are spelled; values stay as they are."""
    if not word.startswith("--"):
        return word
    name, equals, value = word[2:].partition("=")
    spelled = name.replace("-", "_")
    keyword = "_" if f"{spelled}_" in known else ""
    return f"--{spelled}{keyword}{equals}{value}"


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
