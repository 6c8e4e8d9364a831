"""WordNet's synonyms, read from Princeton's own dictionary files.

A small reader, because libraries want a file (`lexnames`) that the packaged copies lack. Two kinds of files are read:
`index.sense`, which says how often each sense of a word was met in tagged text, and `data.noun`, `data.verb`, `data.adj`,
`data.adv`, a line for each set of words that mean the same. Source: Miller 1995, "WordNet: a lexical database for English",
https://doi.org/10.1145/219717.219748; the format is wndb(5WN) and senseidx(5WN).
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

from lmrec.errors import InputError

Synonyms: TypeAlias = dict[str, tuple[str, ...]]  # lower-case word -> other words of its commonest sense

_PARTS = {"1": "noun", "2": "verb", "3": "adj", "4": "adv", "5": "adj"}  # 5: satellite adjectives, kept with the others
_WAY_OUT = "Fetch it with `lmrec data fetch wordnet`, or give the folder of Princeton's files as augment.words.wordnet"
_PLACE_MARK = re.compile(r"\((?:a|p|ip)\)$")  # where an adjective may stand, such as galore(ip)


def read_synonyms(folder: Path) -> Synonyms:
    """Each single word's synonyms, in its sense that was met most often (ties: the first listed, nouns first).

    Words are taken as WordNet spells them: no inflected forms. A synonym of several words has spaces. Words without a
    synonym in that sense are left out. Raises InputError where a file is missing or is not of this format.
    """
    senses = _commonest_senses(folder / "index.sense")
    sets = {part: dict(_word_sets(folder / f"data.{part}")) for part in sorted(set(_PARTS.values()))}
    found: Synonyms = {}
    for word, (part, offset) in senses.items():
        if offset not in sets[part]:
            raise InputError(f"{folder}: data.{part} lacks the set {offset} of '{word}'. {_WAY_OUT}")
        others = tuple(dict.fromkeys(other for other in sets[part][offset] if other.lower() != word))
        if others:
            found[word] = others
    return found


def _commonest_senses(file: Path) -> dict[str, tuple[str, str]]:
    """Word -> (part of speech, offset of the set in that part's file)."""
    best: dict[str, tuple[tuple[int, int, str], tuple[str, str]]] = {}
    for line in _read_lines(file):
        try:
            key, offset, number, count = line.split()
            word, _, rest = key.partition("%")
            rank = (-int(count), int(number), rest[0])
            place = (_PARTS[rest[0]], offset)
        except (ValueError, IndexError, KeyError):
            raise InputError(f"{file}: '{line[:60]}' is no line of WordNet's index.sense. {_WAY_OUT}") from None
        if "_" not in word and (word not in best or rank < best[word][0]):
            best[word] = (rank, place)
    return {word: place for word, (_, place) in best.items()}


def _word_sets(file: Path) -> Iterator[tuple[str, list[str]]]:
    """(offset, words) of each line: `offset lex_file type n_words(hex) word lex_id word lex_id ...`."""
    for line in _read_lines(file):
        if line.startswith("  "):  # the licence, on top
            continue
        fields = line.split(" ", 4)
        try:
            n_words = int(fields[3], 16)
            words = fields[4].split(" ", 2 * n_words)[: 2 * n_words : 2]
        except (ValueError, IndexError):
            raise InputError(f"{file}: '{line[:60]}' is no line of WordNet's {file.name}. {_WAY_OUT}") from None
        yield fields[0], [_PLACE_MARK.sub("", word).replace("_", " ") for word in words]


def _read_lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} of WordNet cannot be read ({error}). {_WAY_OUT}") from None
