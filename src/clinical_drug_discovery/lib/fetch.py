"""Download a public knowledge graph from Harvard Dataverse, only when the user asks for it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ..system.arguments import plain_arguments
from ..system.download import Remote, download, read_text
from ..system.errors import InputError
from ..system.log import milestone
from ..system.processes import alone
from ..system.untrusted.inputs import parse_json

SERVER = "https://dataverse.harvard.edu"
PRIMEKG, OPTIMUSKG = "doi:10.7910/DVN/IXA7BM", "doi:10.7910/DVN/IYNGEV"  #: persistent ids


@dataclass(frozen=True)
class _Dataset:
    """The answer of the server about a dataset."""

    doi: str
    version: str
    license: str
    files: dict[str, Remote]  #: by name; files in folders have the folder in their name


@plain_arguments
@alone()
def fetch_primekg(output_csv: str | Path, *, overwrite: bool = False) -> dict[str, Any]:
    """Download kg.csv of PrimeKG (about 1 GB) from Harvard Dataverse.

    The latest version of https://doi.org/10.7910/DVN/IXA7BM is taken. A download that was cut
    continues with the same command. Size and checksum are compared with those that the server
    states.

    Args:
        output_csv: file to write.
        overwrite: replace another file of this name.

    Returns:
        The persistent id, version and license of the dataset, and for each file its path, bytes,
        MD5, and False under "downloaded" if it was complete already.

    Raises:
        InputError: a parameter is invalid, or the download fails. A part of the file stays beside
            it, and the same command continues it.

    Example:
        >>> from clinical_drug_discovery.lib.fetch import fetch_primekg
        >>> fetch_primekg("kg.csv")["license"]
    """
    return _fetch(PRIMEKG, {"kg.csv": Path(output_csv)}, "output_csv", overwrite)


@plain_arguments
@alone()
def fetch_optimuskg(output_dir: str | Path, *, overwrite: bool = False) -> dict[str, Any]:
    """Download edges.parquet and nodes.parquet of OptimusKG from Harvard Dataverse.

    The latest version of https://doi.org/10.7910/DVN/IYNGEV is taken, see `fetch_primekg`. Pass the
    directory as `--edges`.

    Args:
        output_dir: directory for both files.
        overwrite: replace other files of these names.

    Returns:
        See `fetch_primekg`. The sources of OptimusKG have terms of their own.

    Raises:
        InputError: a parameter is invalid, or the download fails; see `fetch_primekg`.

    Example:
        >>> from clinical_drug_discovery.lib.fetch import fetch_optimuskg
        >>> [file["path"] for file in fetch_optimuskg("optimuskg")["files"]]
    """
    directory = Path(output_dir)
    targets = {name: directory / name for name in ("nodes.parquet", "edges.parquet")}
    return _fetch(OPTIMUSKG, targets, "output_dir", overwrite)


def _fetch(doi: str, targets: dict[str, Path], parameter: str, overwrite: bool) -> dict[str, Any]:
    """Download some files of a dataset; return the record of it."""
    dataset = _describe(doi)
    for name in targets:
        if name not in dataset.files:
            raise InputError(
                f"{SERVER}: version {dataset.version} of {doi} does not have the file {name}, but "
                f"{', '.join(sorted(dataset.files)[:10])}"
            )
    milestone(f"{doi}, version {dataset.version}; license: {dataset.license}")
    files = []
    for name, target in targets.items():
        remote = dataset.files[name]
        is_new = download(remote, target, parameter, overwrite=overwrite)
        milestone(f"{'Wrote' if is_new else 'Complete already:'} {target}, MD5 {remote.md5}")
        record = {"path": str(target), "bytes": remote.num_bytes, "md5": remote.md5}
        files.append({**record, "downloaded": is_new})
    about = {"doi": doi, "version": dataset.version, "license": dataset.license}
    return {**about, "files": files}


def _describe(doi: str) -> _Dataset:
    """Ask the server about a dataset.

    Raises:
        InputError: the server cannot be reached, or its answer is not a description.
    """
    url = f"{SERVER}/api/datasets/:persistentId/?persistentId={quote(doi)}"
    try:
        latest = parse_json(read_text(url))["data"]["latestVersion"]
        files = {}
        for one in latest["files"]:
            file = one["dataFile"]
            name = "/".join(filter(None, [one.get("directoryLabel"), file["filename"]]))
            checksum = file.get("checksum") or {"type": "MD5", "value": file.get("md5")}
            md5 = str(checksum["value"]).lower()
            if checksum["type"] == "MD5" and re.fullmatch("[0-9a-f]{32}", md5):
                address = f"{SERVER}/api/access/datafile/{int(file['id'])}"
                files[name] = Remote(address, name, int(file["filesize"]), md5)
        version = f"{latest['versionNumber']}.{latest['versionMinorNumber']}"
        return _Dataset(doi, version, _license(latest), files)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{url} does not describe a dataset: {error!r:.200}") from None


def _license(latest: dict[str, Any]) -> str:
    """Return the license that the server states."""
    found = latest.get("license")
    if isinstance(found, dict):
        return " ".join(str(found[key]) for key in ("name", "uri") if found.get(key))
    return str(found or latest.get("termsOfUse") or "not stated; see the page of the dataset")
