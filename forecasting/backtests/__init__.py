"""The parts of a backtest: what is forecast from where, the scores of one origin, all scores, and what runs them."""
