"""No message about the address of a store shows what may be a password."""

import pytest

from infra.errors import UsageError
from stream.store import open_reader, open_writer
from stream.store.shown import shown_store
from stream.store.sqlite_file import path_of_url


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("sqlite:///a=b@c.db", "sqlite:///a=b@c.db"),
        ("postgresql://me:hush@db:5433/town?options=-csearch_path%3Dx", "postgresql://db:5433/town"),
        ("postgres://db/town?user=me&password=hush", "postgresql://db/town"),
        ("influxdb://db:8086/org/bucket", "influxdb://db:8086/org/bucket"),
        ("influxdb://me:hush@db:8086/org/bucket", "influxdb://…"),
        ("postgresq://me:hush@db/town", "postgresq://…"),
    ],
)
def test_the_address_of_a_store_is_shown_without_its_password(url: str, shown: str) -> None:
    assert shown_store(url) == shown


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresq://me:hush@db/town", "'postgresq://…'"),
        ("mysql://db/town?password=hush", "'mysql://…'"),
        ("host=db password=hush", "'…'"),
        ("me:hush@db/town", "'…'"),
        ("store.db", "'store.db'"),
    ],
)
def test_a_mistake_in_the_scheme_does_not_show_the_password(url: str, shown: str) -> None:
    for opening in (open_reader, open_writer, path_of_url):
        with pytest.raises(UsageError) as caught:
            opening(url)
        assert caught.value.message == f"not a store that this version can open: {shown}"
        assert "hush" not in str(caught.value)
