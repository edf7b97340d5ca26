"""A run as one self-contained HTML file."""

from xbat_live.report.page import make_report

__all__ = ["make_report"]
