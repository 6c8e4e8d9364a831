"""TextRank: the sentences or words of a long description that the others point to most.

Mihalcea & Tarau 2004, "TextRank: Bringing Order into Text", https://aclanthology.org/W04-3252. Sentences are joined by the
words they share, words by standing near each other, and PageRank (networkx, which torch brings along) says what is
central. A description under a word budget then keeps what is central instead of what comes first.
"""

import math
import re
from collections.abc import Sequence
from itertools import combinations
from typing import TypeVar

from lmrec.text.words import SMALL_WORDS, WORD

_SENTENCE_END = re.compile(r"(?<=[.!?;])\s+|\s+[•*]\s+")
_Node = TypeVar("_Node")
_NEAR = 3  # words so far apart at most point to each other
_MAX_SENTENCES = 200  # of a description; the graph grows with the square


def keep_head(text: str, n_words: int) -> str:
    """
    >>> keep_head("one two  three", 2)
    'one two'
    """
    return " ".join(text.split()[:n_words])


def keep_sentences(text: str, n_words: int) -> str:
    """The most central sentences that fit into `n_words`, in the order of the text.

    Where not even one fits, the head of the most central one.
    """
    sentences = [part for part in _SENTENCE_END.split(text) if part.strip()][:_MAX_SENTENCES]
    order = rank_sentences(sentences)
    room, kept = n_words, []
    for place in order:
        length = len(sentences[place].split())
        if length <= room:
            kept.append(place)
            room -= length
    if not kept:
        return keep_head(sentences[order[0]], n_words) if order else ""
    return " ".join(sentences[place].strip() for place in sorted(kept))


def keep_keywords(text: str, n_words: int) -> str:
    """The `n_words` most central different words, as they are first written and in that order; no sentence any more.
    The head of a text that says nothing but small words and numbers."""
    spoken = [word for word in WORD.findall(text) if word.lower() not in SMALL_WORDS and not word.isdigit()]
    if not spoken:
        return keep_head(text, n_words)
    first: dict[str, int] = {}
    for place, word in enumerate(spoken):
        first.setdefault(word.lower(), place)
    edges: dict[tuple[str, str], float] = {}
    for distance in range(1, _NEAR + 1):
        for left, right in zip(spoken, spoken[distance:], strict=False):
            one, other = sorted((left.lower(), right.lower()))
            if one != other:  # no word votes for itself
                edges[one, other] = edges.get((one, other), 0.0) + 1.0
    score = _page_rank(list(first), edges)
    best = sorted(first, key=lambda word: (-score[word], first[word]))[:n_words]
    return " ".join(spoken[first[word]] for word in sorted(best, key=first.__getitem__))


def rank_sentences(sentences: Sequence[str]) -> list[int]:
    """Places of the sentences, the most central first; equally central ones in the order of the text."""
    words = [{word.lower() for word in WORD.findall(sentence)} - SMALL_WORDS for sentence in sentences]
    edges: dict[tuple[int, int], float] = {}
    for left, right in combinations(range(len(sentences)), 2):
        shared = len(words[left] & words[right])
        if shared:
            edges[left, right] = shared / (math.log(1 + len(words[left])) + math.log(1 + len(words[right])))
    score = _page_rank(list(range(len(sentences))), edges)
    return sorted(score, key=lambda place: (-round(score[place], 9), place))


def _page_rank(nodes: Sequence[_Node], edges: dict[tuple[_Node, _Node], float]) -> dict[_Node, float]:
    """A weight for each node, summing to one; nothing points anywhere: all weigh alike."""
    if not edges:
        return dict.fromkeys(nodes, 1.0)
    import networkx as nx

    graph = nx.Graph()
    graph.add_nodes_from(nodes)
    graph.add_weighted_edges_from((left, right, weight) for (left, right), weight in edges.items())
    found: dict[_Node, float] = nx.pagerank(graph)
    return found
