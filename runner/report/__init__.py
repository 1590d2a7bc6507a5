"""What a run has found, to look at: a page of plots and tables, figures for a paper, schedules, and traces for Perfetto.

It reads `results.sqlite` and `manifest.json`, and nothing else.
"""
