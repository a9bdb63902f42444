"""Colours that figures and pages share."""

BEFORE, AFTER = "#d1670f", "#1768b0"
"""colours of the states before and after the correction"""
