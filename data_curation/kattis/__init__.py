"""Problem packages as Kattis, DOMjudge and ICPC contests exchange them, in the legacy and the 2023-07 layout."""

from data_curation.kattis.metadata import PackageError
from data_curation.kattis.package import Package, find_packages, read_package

__all__ = ["Package", "PackageError", "find_packages", "read_package"]
