"""What keeping a history's keys and values saves when a GPT-type model scores titles: `python -m benchmarks.tuning.prefix`.

Prints processor seconds with the history read once and read with each title, and the largest difference of the scores.
"""

import time

import numpy as np
import torch

from lmrec.artifacts.pretrained import locate_pretrained
from lmrec.fields import FloatArray, IntArray, Ragged
from lmrec.models.causal_lm import load_causal_lm, score_continuations
from lmrec.text.pairs import NEXT_PROMPT, build_layout, join_prefix, tokenize_parts
from lmrec.text.tokens import load_tokenizer

NAME = "SmolLM2-135M-Instruct"
TITLES = (
    "Heat (1995). Action, Crime", "Ronin (1998). Action, Thriller", "Toy Story (1995). Animation, Children's, Comedy",
    "Fargo (1996). Crime, Drama, Thriller", "Casablanca (1942). Drama, Romance, War", "Babe (1995). Children's, Comedy, Drama",
    "Alien (1979). Action, Horror, Sci-Fi, Thriller", "Aliens (1986). Action, Sci-Fi, Thriller, War",
    "Star Wars (1977). Action, Adventure, Romance, Sci-Fi, War", "Contact (1997). Drama, Sci-Fi",
)  # fmt: skip
HISTORY = (6, 7, 8, 1, 0)


@torch.no_grad()
def each_with_history(model: torch.nn.Module, prefix: IntArray, titles: Ragged) -> FloatArray:
    """(K,) the same scores with nothing kept."""
    found = []
    for at in range(len(titles)):
        row = torch.from_numpy(np.concatenate([prefix, titles[at]])).unsqueeze(0)
        likely = model(input_ids=row, use_cache=False).logits[0].float().log_softmax(-1)
        places = np.arange(len(prefix) - 1, row.shape[1] - 1)
        found.append(float(likely[places, row[0, places + 1]].mean()))
    return np.array(found)


def main() -> None:
    location = locate_pretrained(NAME)
    model, tokenizer = load_causal_lm(location), load_tokenizer(location)
    layout = build_layout(tokenizer, " | ", NEXT_PROMPT)
    parts = tokenize_parts(tokenizer, TITLES)
    prefix, own = join_prefix(layout, parts, np.array(HISTORY), np.arange(len(TITLES)), 160)
    started = time.process_time()
    kept = score_continuations(model, prefix, own, int(tokenizer.pad_token_id or 0), 512)
    once = time.process_time()
    plain = each_with_history(model, prefix, own)
    each = time.process_time()
    print(
        f"{len(prefix)} tokens of history, {len(own)} titles of {own.lengths.mean():.1f}: {once - started:.2f} s read once, "
        f"{each - once:.2f} s read with each, largest difference {np.abs(kept - plain).max():.1e}"
    )


if __name__ == "__main__":
    main()
