"""Run a notebook in the current directory, and store it with its answers.

    python .ci/run_notebook.py examples/first_steps.ipynb OUTPUT

OUTPUT may be the notebook itself. The live lines of the log are left out.
"""

from __future__ import annotations

import sys
from typing import Any

import nbclient
import nbformat


def without_blank_lines(output: Any) -> Any:
    """Return an output of a cell without the blank lines that a live line leaves."""
    if output.output_type == "stream":
        lines = output.text.splitlines(keepends=True)
        output.text = "".join(line for line in lines if line.strip())
    return output


def main(source: str, target: str) -> None:
    """Run the notebook `source`, and write it to `target`."""
    notebook = nbformat.read(source, as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", coalesce_streams=True, record_timing=False
    )
    client.execute()
    for cell in notebook.cells:
        outputs = [without_blank_lines(one) for one in cell.get("outputs", [])]
        if outputs:
            cell.outputs = [one for one in outputs if one.get("text", "-")]
    notebook.metadata.language_info = {"name": "python"}  # without the version of Python
    nbformat.write(notebook, target)


if __name__ == "__main__":
    main(*sys.argv[1:])
