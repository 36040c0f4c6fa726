"""The web: the studio page and its API."""
