"""The stages of curation, one a file; each takes problems and gives problems, what it dropped, and its figures."""
