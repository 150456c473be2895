"""Turns the files of a run into what a person reads: tables, charts, pages, a sentence."""
