"""The report of a run: one self-contained HTML page, and the model card."""

from rlvr.report.model_card import write_model_card
from rlvr.report.page import render_report

__all__ = ["render_report", "write_model_card"]
