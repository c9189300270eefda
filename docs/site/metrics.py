"""The metric schema, from `infra.schema`."""

from docs.site.text import code, table
from infra.schema import (
    METRICS,
    ORDER_CONSTRAINTS,
    QUANTILE_LEVELS,
    RUNNING_TOTALS,
    SCHEMA_VERSION,
    Kind,
)

_KINDS = {
    Kind.COUNT: "a whole number ≥ 0 of one step",
    Kind.SHARE: "a number in [0, 1]; 0 where it is undefined",
    Kind.TOTAL: "a whole number that never falls: distinct since the beginning",
}


def page() -> str:
    """Return the page of the metrics of a snapshot."""
    orders = "\n".join(f"- `{smaller}` ≤ `{larger}`" for smaller, larger in ORDER_CONSTRAINTS)
    totals = "\n".join(
        f"- `{total}` of a step is that of the step before plus `{new}`" for total, new in RUNNING_TOTALS
    )
    levels = ", ".join(f"{level:g}" for level in QUANTILE_LEVELS)
    return "\n".join(
        [
            f"# Metrics, schema {SCHEMA_VERSION}\n",
            "What a snapshot holds and what a forecast predicts, for one graph and one step. Made from"
            " `infra/schema.py`.\n",
            table(
                ("metric", "kind", "meaning"),
                [(code(metric.name), metric.kind.value, metric.meaning) for metric in METRICS],
            ),
            "## Kinds\n",
            table(("kind", "values"), [(kind.value, said) for kind, said in _KINDS.items()]),
            "## What always holds\n",
            "In every snapshot, at every quantile level of a forecast, and in every sample path:\n",
            f"{orders}\n",
            f"In every snapshot and every sample path:\n\n{totals}\n",
            f"Quantile levels of a forecast: {levels}. They do not cross.\n",
        ]
    )
