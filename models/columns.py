"""Which columns of an array over the schema's metrics are what, and the levels of its quantiles as an array.

Shape suffixes: M metrics, K modelled metrics, Q quantile levels.
"""

import numpy as np

from infra.schema import METRIC_INDEX, METRICS, QUANTILE_LEVELS, RUNNING_TOTALS, Kind

LEVELS = np.array(QUANTILE_LEVELS)
N_LEVELS = len(QUANTILE_LEVELS)
MEDIAN = QUANTILE_LEVELS.index(0.5)

COUNTS = [index for index, metric in enumerate(METRICS) if metric.kind is Kind.COUNT]
SHARES = [index for index, metric in enumerate(METRICS) if metric.kind is Kind.SHARE]
IS_SHARE = np.array([metric.kind is Kind.SHARE for metric in METRICS])
# In the order of `RUNNING_TOTALS`: each total is the sum of its new ones.
TOTALS = [METRIC_INDEX[total] for total, _ in RUNNING_TOTALS]
NEWS = [METRIC_INDEX[new] for _, new in RUNNING_TOTALS]

# Totals are not modelled: they follow from the new nodes and edges.
MODELLED = np.array([i for i, metric in enumerate(METRICS) if metric.kind is not Kind.TOTAL], dtype=np.int64)
N_MODELLED = len(MODELLED)
# Of the modelled ones, [K].
IS_COUNT = np.array([METRICS[i].kind is Kind.COUNT for i in MODELLED])
