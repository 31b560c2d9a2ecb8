"""Parts of a run that several commands share: start, results, model directory, device trial."""
