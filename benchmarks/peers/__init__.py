"""lmrec beside real rivals: the same split, the same seen-item rule, the same metric code, searches as large.

cells.py           which data under which question               spaces.py    what each rival's search may choose from
exchange.py        the folder that rivals read; ranked lists back rivals.py    rivals of the product, rivals of other packages
rectools_peer.py   SASRec and UniSRec in an environment of their own          own.py       lmrec's rows
steps.py           one finished step is one JSON file            results.py   the tables in benchmarks/RESULTS.md
stopwatch.py       seconds and memory
check.py           a small part again, against expected.toml     __main__.py  the command line
"""
