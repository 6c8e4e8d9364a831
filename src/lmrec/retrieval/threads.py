"""faiss takes no more cores than torch does."""

import torch


def bound_faiss() -> None:
    """Give faiss, in this thread, as many threads as torch has.

    To be called where faiss is about to work: OpenMP keeps the number thread by thread, and a thread that was never told takes
    every core of the machine; torch alone tells each of its threads by itself.
    """
    import faiss

    faiss.omp_set_num_threads(torch.get_num_threads())
