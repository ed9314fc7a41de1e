"""File formats of exported documents, one module each."""
