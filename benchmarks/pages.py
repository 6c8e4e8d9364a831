"""Results in a page that people write: what stands between two marks is made anew."""

from pathlib import Path


def write_between(page: Path, text: str, begin: str, end: str) -> None:
    """Put the text between the page's two marks. Raises ValueError where it lacks them."""
    before, rest = page.read_text(encoding="utf-8").split(begin)
    _, after = rest.split(end)
    page.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")
