"""The results of the commands as tables on stdout."""
