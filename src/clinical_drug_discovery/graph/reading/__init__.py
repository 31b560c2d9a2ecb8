"""The reading engine: rows and nodes of any format, and checks of both."""
