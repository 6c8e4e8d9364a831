"""A process to be killed: it writes to a store from several threads and notes each answer in a file.

Run as `python ingest_child.py URL ACKS`. For each line on its input ("ROUND FIRST", two numbers) it forks a child that
ingests until it is killed, prints the child's process id, waits for its end, and prints "ended". Forking saves the
seconds of importing everything for each of many kills.

The child's threads send events `t<thread>-<n>` in order, from `FIRST` on, in batches of 1 to 7, and put items
`t<thread>` whose field `n` counts up. A line in ACKS is written only after the store has answered.
"""

import os
import sys
import threading

from lmrec.feedback.store import Event, ItemPut, Store

N_THREADS = 4


def ingest(url: str, acks: str, kill_round: int, first: int) -> None:
    answers = os.open(acks, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    store = Store.open(url)

    def send(thread: int) -> None:
        n = first
        while True:
            size = 1 + (n + thread) % 7
            batch = [
                Event(f"t{thread}-{place}", f"u{thread}", f"i{place % 9}", "view", float(place))
                for place in range(n, n + size)
            ]
            added = store.add_events(batch)
            n += size
            os.write(answers, f"events {thread} {n} {added.accepted} {added.duplicates}\n".encode())
            if n % 3 == 0:
                item_n = kill_round * 1_000_000 + n
                version = store.put_items([ItemPut(f"t{thread}", {"n": item_n})])
                os.write(answers, f"item {thread} {item_n} {version} 0\n".encode())

    threads = [threading.Thread(target=send, args=(thread,)) for thread in range(N_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def main() -> None:
    url, acks = sys.argv[1:]
    for line in sys.stdin:
        kill_round, first = map(int, line.split())
        child = os.fork()
        if child == 0:
            ingest(url, acks, kill_round, first)
            os._exit(1)  # only a kill ends a child
        print(child, flush=True)
        os.waitpid(child, 0)
        print("ended", flush=True)


if __name__ == "__main__":
    main()
