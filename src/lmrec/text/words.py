"""What counts as a word, and the small English words that carry a sentence but say little of an item."""

import re
from typing import Final

WORD: Final = re.compile(r"\w+(?:['’-]\w+)*")
SMALL_WORDS: Final = frozenset(
    "a an and are as at be but by for from has have he her his i in into is it its me my no not of on or our out she so "
    "than that the their them then there they this to up us was we were what when which who will with you your".split()
)
