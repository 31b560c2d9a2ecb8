"""Copy the JavaScript library of the explorer from npm into the package.

    make vendor

Needs npm. `vendor.json` says which versions, and gets the checksum of each file. A test compares
the files with it, so that a change of a file is a change of a version.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
VENDOR = ROOT / "src" / "clinical_drug_discovery" / "show" / "explore" / "static" / "vendor"
RECORD = VENDOR / "vendor.json"


def main() -> None:
    """Fetch each package of the record, and write its file, the license and the record."""
    record = json.loads(RECORD.read_text())
    for name, entry in record.items():
        with tempfile.TemporaryDirectory() as directory:
            package = f"{name}@{entry['version']}"
            subprocess.run(["npm", "pack", "--silent", package], cwd=directory, check=True)
            (archive,) = Path(directory).glob("*.tgz")
            with tarfile.open(archive) as files:
                for inside, target in (
                    (f"package/dist/{name}.min.js", VENDOR / f"{name}.min.js"),
                    ("package/LICENSE", VENDOR / "LICENSE.txt"),  # all have the same
                ):
                    content = files.extractfile(inside)
                    assert content is not None
                    target.write_bytes(content.read())
        script = (VENDOR / f"{name}.min.js").read_bytes()
        entry["sha256"] = hashlib.sha256(script).hexdigest()
    RECORD.write_text(f"{json.dumps(record, indent=2)}\n")


if __name__ == "__main__":
    main()
