"""What somebody says they want, and what they say they do not: "something light for rainy days, no horror".

To a language model "no horror" is a text about horror, and lists follow it there. So what is not wanted is taken out of
the words before they are encoded, and items that name it are left out. English only, and only what is said with one of a
few words (no, not, without, nothing, except, avoid); what is not recognised stays in the text as before.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

_WORD: Final = r"[^\W_][\w'’-]*"
_WORDS: Final = rf"{_WORD}(?:(?:\s*[&/]\s*|\s+){_WORD})*"
_ITEMS: Final = rf"(?:,\s*{_WORD}(?:\s+{_WORD}){{0,2}})+"
_NOT: Final = re.compile(
    r"(?<![\w'’-])(?<!\bwhy )(?<!\bor )(?:(?:and|but)\s+)?"
    r"(?:no|not|without|except(?:\s+for)?|nothing|anything\s+but|avoid(?:ing)?|(?:i\s+)?(?:don['’]?t|do\s+not)\s+(?:want|like))\s+"
    # A list, whose commas count only where "or" or ", and" comes: "no horror, comedy or romance", but "no horror, comedy".
    rf"(?P<said>{_WORDS}(?:(?:,?\s+n?or|{_ITEMS}(?:,?\s+n?or|,\s+and))\s+{_WORDS})?)",
    re.IGNORECASE,
)
_FILLERS: Final = frozenset(
    "a about all an any anything at being bit by in into involving kind like lots more much of please so sort the too "
    "very with".split()
)
_ENDS: Final = frozenset(
    "and because but for from i if just maybe on only or nor since something that then to we what when where which while "
    "who with".split()
)
_EMPTY: Final = frozenset(
    "film films movie movies item items one ones stuff thing things product products book books".split()
)
_NO_DENIAL: Final = frozenset(
    "bad beats clue compares doubt else fewer idea just later less like longer matter more necessarily need one only "
    "preference problem rush sure thank thanks".split()
)  # "not only", "no one", "no idea what"
_SMALL: Final = frozenset("a an and at for in of on or the to with".split())  # in a title without a capital
_JOINTS: Final = frozenset(("or", "nor", ",", "&", "/"))
_INSIDE: Final = re.compile(r"[^\s.!?]\s*$")  # what stands before is of the same sentence
_CLAUSE_END: Final = re.compile(r"\s*(?:$|[,.;:!?])")
_MAX_WORDS: Final = 3


@dataclass(frozen=True)
class Wish:
    """`wanted` may be empty. `unwanted`: words or short phrases, in lower case, in the order said, each once."""

    wanted: str
    unwanted: tuple[str, ...] = ()


def read_wish(text: str) -> Wish:
    """Part a text.

    >>> read_wish("something light for rainy days, no horror")
    Wish(wanted='something light for rainy days', unwanted=('horror',))
    >>> read_wish("A heist without guns or car chases, please")
    Wish(wanted='A heist, please', unwanted=('guns', 'car chases'))
    >>> read_wish("like No Country for Old Men")
    Wish(wanted='like No Country for Old Men', unwanted=())
    >>> read_wish("something new, no horror, musicals or romance")
    Wish(wanted='something new', unwanted=('horror', 'musicals', 'romance'))
    >>> read_wish("a western without guns, car chases, and love/romance")
    Wish(wanted='a western', unwanted=('guns', 'car chases', 'love', 'romance'))
    >>> read_wish("why not a comedy? nothing beats a good one")
    Wish(wanted='why not a comedy? nothing beats a good one', unwanted=())
    >>> read_wish("no horror and gore, but a mystery")
    Wish(wanted='but a mystery', unwanted=('horror', 'gore'))
    """
    kept: list[str] = []
    unwanted: list[str] = []
    at = 0
    while (found := _NOT.search(text, at)) is not None:
        phrases, end = _phrases(text, found)
        if not phrases:
            kept.append(text[at : found.start("said")])
            at = found.start("said")
            continue
        kept.append(text[at : found.start()])
        unwanted += phrases
        at = end
    if not unwanted:
        return Wish(text)
    kept.append(text[at:])
    return Wish(_tidy("".join(kept)), tuple(dict.fromkeys(unwanted)))


def spellings(phrase: str) -> tuple[str, ...]:
    """The phrase, and its last word in the singular and the plural, as far as English spelling tells.

    >>> spellings("comedies"), spellings("car chase")
    (('comedies', 'comedy'), ('car chase', 'car chases'))
    """
    forms = [phrase]
    if phrase.endswith("ies") and len(phrase) > 4:
        forms.append(f"{phrase[:-3]}y")
    elif phrase.endswith("s") and not phrase.endswith("ss") and len(phrase) > 3:
        forms.append(phrase[:-1])
    elif phrase.endswith("y") and phrase[-2:-1] not in "aeiou":
        forms.append(f"{phrase[:-1]}ies")
    elif not phrase.endswith("s"):
        forms.append(f"{phrase}s")
    return tuple(forms)


def _phrases(text: str, found: re.Match[str]) -> tuple[list[str], int]:
    """What is denied, and where in the text that ends; nothing where it is the name of something, or no denial."""
    words = list(re.finditer(rf"{_WORD}|[,&/]", found["said"]))
    denial = found.group()[: found.start("said") - found.start()].split()
    if words[0].group().lower() in _NO_DENIAL or (
        denial[-1] == "No" and _is_name(words, bool(_INSIDE.search(text, 0, found.start())))
    ):
        return [], 0
    phrases: list[list[str]] = [[]]
    end = found.start("said")
    for word in words:
        said = word.group().lower()
        if phrases[-1] and (said in _JOINTS or (said == "and" and _ends_the_clause(found["said"], word.end()))):
            phrases.append([])
            continue
        if said in _JOINTS or (said == "and" and len(phrases) > 1 and not phrases[-1]):  # "horror, or gore"
            continue
        if said in _FILLERS and not phrases[-1]:
            continue
        if said in _ENDS or len(phrases[-1]) == _MAX_WORDS:
            break
        phrases[-1].append(said)
        end = found.start("said") + word.end()
    trimmed = [_trim(phrase) for phrase in phrases]
    return [" ".join(phrase) for phrase in trimmed if phrase], end


def _is_name(words: Sequence[re.Match[str]], inside: bool) -> bool:
    """Whether what follows "No" is the rest of a name: inside a sentence by its first capital, at its start by at least two."""
    said = [word.group() for word in words if word.group().lower() not in _SMALL | _EMPTY]
    if any(word.group().lower() in _JOINTS for word in words):
        return False
    return bool(said) and said[0][0].isupper() and (inside or (len(said) > 1 and all(one[0].isupper() for one in said)))


def _ends_the_clause(said: str, at: int) -> bool:
    """Whether one word alone comes before the next stop, as in "no horror and gore": then that is not wanted either."""
    word = re.compile(rf"\s+(?P<word>{_WORD})").match(said, at)
    return (
        word is not None and word["word"].lower() not in _ENDS | _FILLERS and bool(_CLAUSE_END.match(said, word.end()))
    )


def _trim(words: list[str]) -> list[str]:
    """Without the words that only say that it is an item: "horror films" is horror."""
    while words and words[-1] in _EMPTY | _FILLERS:
        words = words[:-1]
    return words


def _tidy(text: str) -> str:
    """Without the commas and spaces that stood around what was taken out."""
    text = re.sub(r"\s+", " ", text)
    text = re.sub(r"\s+([,.;!?])", r"\1", text)
    return re.sub(r"([,;])(?:\s*[,;.])+", r"\1", text).strip(" ,;.")
