"""Both layouts of MovieLens-100K, made small, give the same dataset; fetching checks what it gets."""

import subprocess
import zipfile
from hashlib import md5, sha256
from pathlib import Path

import pytest

from lmrec.data.sources import TablesConfig, read_movielens, read_movielens_100k, registry, wheels
from lmrec.data.sources.registry import fetch_dataset, list_datasets
from lmrec.errors import DataError, InputError

# Nineteen flags; the fourth is Animation, the sixth Comedy, and the first says that nothing is known.
COMEDY = "|".join("1" if place in (3, 5) else "0" for place in range(19))
UNKNOWN = "1" + "|0" * 18
GROUPLENS = {
    "u.data": "1\t2\t5\t881250949\n1\t1\t3\t881250950\n2\t3\t4\t891717742\n",
    "u.item": (
        f"1|Net, The (1995)|01-Jan-1995||http://x|{COMEDY}\n"
        f"2|Misérables, Les (1996)|01-Jan-1996||http://x|{COMEDY}\n"
        f"3|unknown||||{UNKNOWN}\n"
    ),
    "u.user": "1|24|M|technician|85711\n2|53|F|other|94043\n",
}
RECBOLE = {
    "ml-100k.inter": "user_id:token\titem_id:token\trating:float\ttimestamp:float\n" + GROUPLENS["u.data"],
    "ml-100k.item": (
        "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
        "1\tNet, The\t1995\tAnimation Comedy\n2\tMisérables, Les\t1996\tAnimation Comedy\n"
        "3\tunkonwn\tunkonwn\tunknown\n"
    ),
    "ml-100k.user": (
        "user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token\n"
        "1\t24\tM\ttechnician\t85711\n2\t53\tF\tother\t94043\n"
    ),
}
LAYOUTS = [(GROUPLENS, "latin-1"), (RECBOLE, "utf-8")]


def lay_out(folder: Path, files: dict[str, str], encoding: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_bytes(text.encode(encoding))
    return folder


def pack(path: Path, prefix: str, files: dict[str, str], encoding: str = "utf-8") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(f"{prefix}/{name}", text.encode(encoding))
    return path


@pytest.mark.parametrize(("files", "encoding"), LAYOUTS, ids=["grouplens", "recbole"])
def test_reads_either_layout(tmp_path: Path, files: dict[str, str], encoding: str) -> None:
    dataset = read_movielens_100k(lay_out(tmp_path / "ml", files, encoding))
    assert dataset.catalog.titles == ["The Net", "Les Misérables", "3"]
    assert dataset.catalog.text_columns == ("title", "year", "genres")
    assert dataset.catalog.attribute_columns == ("year", "genres")
    assert dataset.catalog.frame.row(0) == ("1", "The Net", "1995", "Animation, Comedy")
    assert dataset.catalog.frame.row(2) == ("3", None, None, None)
    log = dataset.interactions
    assert [log.user_ids[user] for user in log.user_idx] == ["1", "1", "2"]
    assert [dataset.catalog.ids[item] for item in log.item_idx] == ["2", "1", "3"]
    assert log.rating is not None
    assert log.rating.tolist() == [5.0, 3.0, 4.0]
    assert dataset.users is not None
    assert dataset.users.frame["occupation"].to_list() == ["technician", "other"]


def test_layouts_and_zip_agree(tmp_path: Path) -> None:
    datasets = [read_movielens_100k(lay_out(tmp_path / coding, files, coding)) for files, coding in LAYOUTS]
    datasets.append(read_movielens_100k(pack(tmp_path / "ml.zip", "ml-100k", GROUPLENS, "latin-1")))
    assert len({dataset.fingerprint for dataset in datasets}) == 1


def test_min_rating_passes_through(tmp_path: Path) -> None:
    dataset = read_movielens_100k(lay_out(tmp_path, *LAYOUTS[0]), TablesConfig(min_rating=4))
    assert dataset.interactions.n_events == 2


def test_what_is_no_movielens_is_said(tmp_path: Path) -> None:
    (tmp_path / "other.csv").write_text("x")
    with pytest.raises(DataError, match=r"none of u\.data, .*, ratings\.csv is among \['other\.csv'\]"):
        read_movielens_100k(tmp_path)
    with pytest.raises(DataError, match=r"other\.csv: this is neither a folder nor a zip file"):
        read_movielens_100k(tmp_path / "other.csv")
    with pytest.raises(DataError, match=r"u\.item: u\.item is missing beside"):
        read_movielens_100k(lay_out(tmp_path / "half", {"u.data": GROUPLENS["u.data"]}, "latin-1"))


def test_fetching_falls_back_to_the_package_and_is_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = pack(tmp_path / "r.whl", "recbole/dataset_example/ml-100k", RECBOLE)

    def refuse(url: str, max_bytes: int) -> bytes:
        raise OSError("no route")

    monkeypatch.setattr(registry, "_download", refuse)
    monkeypatch.setattr(registry, "download_wheel", lambda requirement, digest, cache: wheel)
    said: list[str] = []
    folder = fetch_dataset("movielens-100k", tmp_path / "cache", said.append)
    assert read_movielens_100k(folder).interactions.n_events == 3
    assert "GroupLens gave nothing usable (no route); fetching the copy in the package recbole==1.2.1" in said
    wheel.unlink()
    assert fetch_dataset("movielens-100k", tmp_path / "cache") == folder
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["movielens-100k"]


def test_fetching_checks_the_grouplens_zip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = pack(tmp_path / "ml.zip", "ml-100k", GROUPLENS, "latin-1").read_bytes()
    monkeypatch.setattr(registry, "_download", lambda url, max_bytes: archive)
    monkeypatch.setattr(registry, "download_wheel", lambda *_: pytest.fail("the zip was good"))
    monkeypatch.setattr(registry, "_ML100K_MD5", md5(archive).hexdigest())
    assert read_movielens_100k(fetch_dataset("movielens-100k", tmp_path / "good")).catalog.n_items == 3


def test_two_processes_may_fetch_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one is done while this one unpacks: its folder stays, whatever reads from it."""
    archive = pack(tmp_path / "ml.zip", "ml-100k", GROUPLENS, "latin-1").read_bytes()
    monkeypatch.setattr(registry, "_ML100K_MD5", md5(archive).hexdigest())
    theirs = tmp_path / "cache" / "movielens-100k"

    def be_late(url: str, max_bytes: int) -> bytes:
        theirs.mkdir(parents=True)
        (theirs / "u.item").touch()
        return archive

    monkeypatch.setattr(registry, "_download", be_late)
    assert fetch_dataset("movielens-100k", tmp_path / "cache") == theirs
    assert [path.name for path in theirs.iterdir()] == ["u.item"]
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["movielens-100k"]


def test_unknown_names_and_the_list() -> None:
    assert [dataset.name for dataset in list_datasets()] == ["movielens-100k", "wordnet"]
    with pytest.raises(InputError, match=r"no data set 'movielens'\. Did you mean 'movielens-100k'"):
        fetch_dataset("movielens", "unused")


def test_a_wheel_is_fetched_once_and_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Done:
        returncode = 0
        stderr = ""

    def fake_pip(command: list[str], **_: object) -> Done:
        pack(Path(command[command.index("--dest") + 1]) / "p-1.0-py3-none-any.whl", "p", {"a.txt": "hello"})
        return Done()

    monkeypatch.setattr(subprocess, "run", fake_pip)
    with pytest.raises(DataError, match=r"the wheel of p==1\.0 has sha256 .*, not 00\. Do not use it"):
        wheels.download_wheel("p==1.0", "00", tmp_path)
    good = sha256(pack(tmp_path / "same.zip", "p", {"a.txt": "hello"}).read_bytes()).hexdigest()
    wheel = wheels.download_wheel("p==1.0", good, tmp_path)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("it was there already"))
    assert wheels.download_wheel("p==1.0", good, tmp_path) == wheel
    assert (wheels.extract_from_wheel(wheel, "p", tmp_path / "out") / "a.txt").read_text() == "hello"
    with pytest.raises(DataError, match=r"there is nothing under 'q/'"):
        wheels.extract_from_wheel(wheel, "q", tmp_path / "out2")


def test_a_failing_pip_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Failed:
        returncode = 1
        stderr = "no matching distribution"

    monkeypatch.setattr(subprocess, "run", lambda *_, **__: Failed())
    with pytest.raises(DataError, match=r"pip cannot download p==1\.0: no matching distribution\. Check the network"):
        wheels.download_wheel("p==1.0", "00", tmp_path)


# --- the rest of the family

DAT = {
    "movies.dat": "1::Net, The (1995)::Animation|Comedy\n2::Alien: Résumé (1979)::Horror\n"
    "3::Unknown Pleasures::(no genres listed)\n",
    "ratings.dat": "1::2::5::978300760\n1::1::3.5::978300761\n2::3::4::978300762\n",
    "users.dat": "1::F::1::10::48067\n2::M::56::16::70072\n",
}
CSV = {
    "movies.csv": 'movieId,title,genres\n1,"Net, The (1995)",Animation|Comedy\n2,Alien: Résumé (1979),Horror\n'
    "3,Unknown Pleasures,(no genres listed)\n",
    "ratings.csv": "userId,movieId,rating,timestamp\n1,2,5.0,978300760\n1,1,3.5,978300761\n2,3,4.0,978300762\n",
}


def test_the_dat_and_csv_families_agree(tmp_path: Path) -> None:
    dat = read_movielens(lay_out(tmp_path / "dat", DAT, "latin-1"))
    assert dat.catalog.titles == ["The Net", "Alien: Résumé", "Unknown Pleasures"]
    assert dat.catalog.frame["year"].to_list() == ["1995", "1979", None]
    assert dat.catalog.frame["genres"].to_list() == ["Animation, Comedy", "Horror", None]
    assert dat.users is not None
    assert dat.users.frame.rows() == [
        ("1", "F", "under 18", "K-12 student", "48067"),
        ("2", "M", "56 or older", "self-employed", "70072"),
    ]
    no_users = {name: text for name, text in DAT.items() if name != "users.dat"}
    for other in (
        lay_out(tmp_path / "10m", no_users, "utf-8"),
        lay_out(tmp_path / "csv", CSV, "utf-8"),
        pack(tmp_path / "ml.zip", "ml-latest", CSV),
    ):
        dataset = read_movielens(other)
        assert dataset.fingerprint == dat.fingerprint
        assert dataset.users is None


def test_broken_lines_of_the_dat_family_are_set_aside(tmp_path: Path) -> None:
    files = DAT | {"ratings.dat": DAT["ratings.dat"] + "2::1::5\n2::1::five::978300762\n"}
    dataset = read_movielens(lay_out(tmp_path, files, "latin-1"), TablesConfig(max_bad_share=1.0))
    assert dataset.quarantine.select("row", "reason").rows() == [
        (4, "the line has not 4 fields between '::'"),
        (5, "rating is not a finite number"),
    ]


@pytest.mark.parametrize(
    ("files", "encoding", "row"), [(*LAYOUTS[0], 4), (*LAYOUTS[1], 5)], ids=["grouplens", "recbole"]
)
def test_broken_lines_of_100k_are_set_aside_by_their_place_in_the_file(
    files: dict[str, str], encoding: str, row: int, tmp_path: Path
) -> None:
    (events,) = (name for name in files if name in ("u.data", "ml-100k.inter"))
    broken = files | {events: files[events] + "2\t1\t5\t978300760\t9\n2\t1\tfive\t978300762\n"}
    dataset = read_movielens(lay_out(tmp_path, broken, encoding), TablesConfig(max_bad_share=1.0))
    assert dataset.quarantine.select("row", "reason").rows() == [
        (row, "the line has not 4 fields between tabs"),
        (row + 1, "rating is not a finite number"),
    ]
    assert len(dataset.interactions) == 3
    (tmp_path / events).write_text("")
    with pytest.raises(DataError, match="the file is empty"):
        read_movielens(tmp_path)
