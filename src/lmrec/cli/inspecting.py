"""`lmrec inspect`: a run folder in words."""

from pathlib import Path

from lmrec.artifacts.run import RunFolder, open_run
from lmrec.cli.show import print_json, print_rich, print_rows, print_table


def inspect_run(path: Path, as_json: bool) -> None:
    run = open_run(path, trained=False)
    record = run.read_record()
    files = _files(run)
    if as_json:
        print_json({**record, "files": dict(files), "recipe": run.recipe_file.read_text(encoding="utf-8")})
        return
    training = record.get("training", {})
    facts = [
        ("status", record["status"]),
        ("made", record["created"]),
        ("from", record["source"]),
        ("seed", str(record["seed"])),
        ("commit", record["commit"] or "unknown (installed package)"),
        ("machine", record["machine"]),
        ("data fingerprint", record["data_fingerprint"]),
        *((key.replace("_", " "), str(value)) for key, value in training.items()),
        *record["versions"].items(),
    ]
    print_rows(str(path), facts)
    if run.checkpoint.exists():
        print_rows("Item text", _template_rows(run))
    if run.evaluation_file.exists():
        from lmrec.workflows.judge import read_table_of

        table = read_table_of(run)
        if table is not None:
            print_table(table)
    if run.impressions_file.exists():
        from lmrec.workflows.impressions import read_impression_table

        shown = read_impression_table(run)
        if shown is not None:
            print_rich(shown.rich())
    if run.reranking_file.exists():
        from lmrec.cli.reranking import print_reranking
        from lmrec.workflows.reranked import read_reranking

        reading = read_reranking(run)
        if reading is not None:
            print_reranking(reading)
    print_rows("Files", files)


def _template_rows(run: RunFolder) -> list[tuple[str, str]]:
    from lmrec.artifacts.checkpoint import read_checkpoint
    from lmrec.data.catalog import Catalog

    template = read_checkpoint(run.checkpoint).template
    catalog = Catalog.from_parquet(run.data / "catalog.parquet")
    return [
        ("template", template.pattern),
        ("fingerprint", template.fingerprint),
        ("the first item", template.render_items(catalog.frame.head(1))[0]),
    ]


def _files(run: RunFolder) -> list[tuple[str, str]]:
    """Each file and its size."""
    found = sorted(path for path in run.path.rglob("*") if path.is_file())
    return [(str(path.relative_to(run.path)), _size(path.stat().st_size)) for path in found]


def _size(n_bytes: int) -> str:
    """
    >>> _size(900), _size(90_868_376)
    ('900 B', '90.9 MB')
    """
    for unit, factor in (("MB", 1_000_000), ("kB", 1_000)):
        if n_bytes >= factor:
            return f"{n_bytes / factor:.1f} {unit}"
    return f"{n_bytes} B"
