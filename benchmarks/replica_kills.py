"""Two of each process under load, one of each killed every minute: what is lost, doubled and refused.

    python benchmarks/replica_kills.py [--minutes 20]

Two `graphtide ingest kafka` of one group over one PostgreSQL, two `graphtide serve` behind nginx as infra/nginx has it,
40 events and some twenty requests a second. Needs Kafka, PostgreSQL and nginx: `.ci/servers` installs them. The result
is printed as JSON and kept in benchmarks/results/replica_kills.json.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from hardware import hardware, versions

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.drill.run import drill

RESULT = Path(__file__).parent / "results" / "replica_kills.json"


def main() -> int:
    """Return 0 where nothing was lost, doubled or refused."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20.0)
    minutes = parser.parse_args().minutes
    command = f"python benchmarks/replica_kills.py --minutes {minutes:g}"
    about: dict[str, object] = {"bench": "replica_kills", "command": command}
    about |= {"hardware": hardware(), "versions": versions("graphtide", "torch", "kafka-python", "psycopg")}
    with tempfile.TemporaryDirectory(prefix="graphtide-drill-") as folder:
        found = about | drill(Path(folder), minutes)
    text = json.dumps(found, indent=2) + "\n"
    sys.stdout.write(text)
    RESULT.write_text(text)
    return 0 if found["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
