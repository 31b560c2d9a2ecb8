"""The public verbs, one module each; nothing else lives here."""
