"""Texts as tokens: sentiment and topics."""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from zoo.errors import InvalidConfigError, MissingDataError
from zoo.problems.parts import DataFormatError, class_ids, classes_problem, config_of, held_out
from zoo.problems.problem import Problem

PADDING = 0
"""Token id that fills short texts up."""

_LEAST_VOCABULARY = 257
"""Padding, and one token for each byte."""
_SST2_WANTED = (
    "Wanted are train.tsv and test.tsv (or dev.tsv) with a sentence, a tab and its label 0 or 1 in "
    "each line, as of github.com/clairett/pytorch-sentiment-classification, or as GLUE has them, "
    "with a header."
)
_AG_NEWS_WANTED = (
    "Wanted are train.csv and test.csv with class, title and description in each line. They are "
    "usually had from github.com/mhjabreel/CharCnn_Keras; one of them will do."
)
_TOPICS = ("1", "2", "3", "4")  # world, sports, business, science and technology

Texts = tuple[list[str], list[str]]
"""Texts and the names of their classes."""


def sst2(
    data: Path | None,
    *,
    vocabulary_size: int = 2048,
    context_length: int = 96,
    truncate: bool = False,
) -> Problem:
    """Load the Stanford sentiment treebank with two classes [1]_ as tokens ``[n, length]``.

    Parameters
    ----------
    data
        Folder with ``train.tsv`` and ``test.tsv``; ``dev.tsv`` is the test part where that has no
        labels, or is not there.
    vocabulary_size, context_length, truncate
        As in :func:`tokenised`.

    Raises
    ------
    MissingDataError
        If a file is not there.
    DataFormatError
        If a line has no label, or a text is longer than the context.
    InvalidConfigError
        If ``tokenizers`` is not installed, or the vocabulary is too small.

    References
    ----------
    .. [1] Socher et al., "Recursive deep models for semantic compositionality over a sentiment
       treebank", EMNLP 2013.
    """
    train = _sentences(_existing(data, ("train.tsv",), _SST2_WANTED))
    tested = _existing(data, ("test.tsv", "dev.tsv"), _SST2_WANTED)
    if _lines(tested)[0].strip() == "index\tsentence":  # GLUE keeps the labels of its test part
        tested = _existing(data, ("dev.tsv",), _SST2_WANTED)
    test = _sentences(tested)
    options: dict[str, Any] = {"vocabulary_size": vocabulary_size, "context_length": context_length}
    options |= {"truncate": truncate}
    return tokenised(
        train,
        test,
        **options,
        where=data,
        name="sst2",
        config=config_of("sst2", sst2, options),
        source="Stanford Sentiment Treebank: Socher et al., EMNLP 2013",
    )


def ag_news(
    data: Path | None,
    *,
    vocabulary_size: int = 4096,
    context_length: int = 320,
    truncate: bool = False,
    test_fraction: float = 0.2,
    seed: int = 0,
) -> Problem:
    """Load topics of news [1]_ as tokens ``[n, length]``: title and description, four classes.

    Parameters
    ----------
    data
        Folder with ``train.csv`` and ``test.csv``, or one of them.
    vocabulary_size, context_length, truncate
        As in :func:`tokenised`.
    test_fraction, seed
        The test part, where there is one file only.

    Raises
    ------
    MissingDataError, DataFormatError, InvalidConfigError
        As :func:`sst2` does.

    References
    ----------
    .. [1] Zhang et al., "Character-level convolutional networks for text classification", NeurIPS
       2015.
    """
    parts = [_news(path) for name in ("train", "test") if (path := _in(data, f"{name}.csv"))]
    if not parts:
        raise MissingDataError(f"Expected train.csv or test.csv at {data}. {_AG_NEWS_WANTED}")
    if len(parts) == 1:
        texts, labels = parts[0]
        chosen = held_out(len(texts), test_fraction=test_fraction, seed=seed)
        parts = [([texts[k] for k in each], [labels[k] for k in each]) for each in chosen]
    options: dict[str, Any] = {"vocabulary_size": vocabulary_size, "context_length": context_length}
    options |= {"truncate": truncate}
    split = {"test_fraction": test_fraction, "seed": seed}
    return tokenised(
        *parts,
        **options,
        where=data,
        name="ag-news",
        config=config_of("ag-news", ag_news, options | split),
        licence="non-commercial use",
        source="AG's corpus of news articles: Zhang et al., NeurIPS 2015",
    )


def tokenised(
    train: Texts,
    test: Texts,
    *,
    vocabulary_size: int,
    context_length: int,
    truncate: bool,
    where: object,
    **about: Any,
) -> Problem:
    """Make a problem of classified texts, with a vocabulary learnt from the training part.

    Parameters
    ----------
    train, test
        Texts and the names of their classes.
    vocabulary_size
        Most tokens there may be; ids are smaller. Id 0 pads.
    context_length
        Tokens of an input.
    truncate
        Cut longer texts, rather than refuse them.
    where
        File or folder, for errors.
    **about
        ``name``, ``config`` and what else a :class:`~zoo.problems.Problem` has.

    Raises
    ------
    DataFormatError
        If a text is longer than the context, and as :func:`zoo.problems.parts.classes_problem`
        does.
    InvalidConfigError
        If ``tokenizers`` is not installed, or the vocabulary is too small.
    """
    encode = vocabulary(train[0], vocabulary_size)
    rows = [encode(texts) for texts, _ in (train, test)]
    lengths = [len(row) for part in rows for row in part]
    longer = sum(length > context_length for length in lengths)
    if longer and not truncate:
        raise DataFormatError(
            f"Expected texts of at most {context_length} tokens in {where}, got {longer} longer "
            f"ones of {len(lengths)}, the longest of {max(lengths)}. Raise context_length, or cut "
            "them by the option truncate=True."
        )
    names, *ids = class_ids(np.array(train[1]), np.array(test[1]), where=where)
    samples = [(_padded(part, context_length), each) for part, each in zip(rows, ids, strict=True)]
    return classes_problem(*samples, classes=names, where=where, **about)


def vocabulary(texts: Sequence[str], size: int) -> Callable[[Sequence[str]], list[list[int]]]:
    """Learn a vocabulary of pieces of words, and return what turns texts into token ids.

    It is byte-pair encoding [1]_ of bytes, so every text has tokens and none is unknown.
    The same texts give the same vocabulary.

    Parameters
    ----------
    texts
        To learn from.
    size
        Most tokens there may be; 0 pads, and bytes take 256.

    References
    ----------
    .. [1] Sennrich et al., "Neural machine translation of rare words with subword units", ACL 2016.
    """
    try:
        from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    except ImportError as error:
        raise InvalidConfigError(
            'Problems of text need the package tokenizers: pip install "weight-zoo[text]".'
        ) from error
    if size < _LEAST_VOCABULARY:
        raise InvalidConfigError(
            f"Expected a vocabulary_size from {_LEAST_VOCABULARY}: padding and one token for each "
            f"byte, got {size}."
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["[PAD]"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return lambda some: [tokenizer.encode(text).ids for text in some]


def _padded(rows: Sequence[Sequence[int]], length: int) -> np.ndarray:
    tokens = np.full((len(rows), length), PADDING, np.int64)
    for position, row in enumerate(rows):
        tokens[position, : len(row)] = row[:length]
    return tokens


def _in(data: Path | None, name: str) -> Path | None:
    return data / name if data is not None and (data / name).is_file() else None


def _existing(data: Path | None, names: Sequence[str], wanted: str) -> Path:
    found = [path for name in names if (path := _in(data, name))]
    if not found:
        raise MissingDataError(f"Expected {' or '.join(names)} at {data}. {wanted}")
    return found[0]


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataFormatError(f"Cannot read {path} as UTF-8 text: {error}.") from error


def _sentences(path: Path) -> Texts:
    """Read lines ``sentence<TAB>label``."""
    texts, labels = [], []
    for number, line in enumerate(_lines(path), 1):
        text, tab, label = line.strip("\r").rpartition("\t")
        if not line.strip() or (number == 1 and (text, label) == ("sentence", "label")):
            continue
        if not tab or not text.strip() or label.strip() not in ("0", "1"):
            raise DataFormatError(
                f"Expected a sentence, a tab and a label 0 or 1 in line {number} of {path}, got "
                f"{line[-40:]!r}."
            )
        texts.append(text)
        labels.append(label.strip())
    return texts, labels


def _news(path: Path) -> Texts:
    """Read rows ``class, title, description``."""
    texts, labels = [], []
    reader = csv.reader(_lines(path), strict=True)
    try:
        for row in reader:
            if not row:
                continue
            if len(row) != 3 or row[0] not in _TOPICS:
                raise DataFormatError(
                    f"Expected a class 1 to 4, a title and a description in line "
                    f"{reader.line_num} of {path}, got {len(row)} fields, the first "
                    f"{row[0][:20]!r}."
                )
            texts.append(f"{row[1]} {row[2]}")
            labels.append(row[0])
    except csv.Error as error:
        raise DataFormatError(f"Cannot read line {reader.line_num} of {path}: {error}.") from error
    return texts, labels
