"""Joins stream and models: the engine, backtesting, the command line, pages and reports."""
