"""Steps that the commands which train share: start and read, the results, the model directory."""
