"""Sessions of the studio: a recording, its edits, and a result that follows them piece by piece. No HTTP in here."""
