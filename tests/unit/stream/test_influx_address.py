"""Addresses of InfluxDB: what is read from a URL and from settings, and that a token is never shown."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from infra.configuration import load_settings
from infra.errors import UsageError
from infra.settings import InfluxDBSettings
from stream.store.influx.address import address_of_settings, address_of_url, is_influx_url


def test_a_store_url_names_server_organisation_and_bucket(clean_environment: Path) -> None:
    address = address_of_url("influxdb://db.example:8086/my%20org/graphtide/autogen")
    assert (address.url, address.org, address.bucket) == ("http://db.example:8086", "my org", "graphtide/autogen")
    assert address.store_url == "influxdb://db.example:8086/my%20org/graphtide/autogen"
    assert address_of_url("influxdb+https://db/o/b").url == "https://db"
    assert is_influx_url("influxdb+https://db/o/b")
    assert not is_influx_url("sqlite:///influxdb.db")


@pytest.mark.parametrize(
    "url",
    ["influxdb://db", "influxdb://db/org", "influxdb://db/org/", "influxdb:///org/b", "influxdb://db/o/b?token=s"],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="not the address of an InfluxDB bucket"):
        address_of_url(url)


def test_a_secret_in_an_address_is_refused_and_not_repeated() -> None:
    for given in (
        lambda: address_of_url("influxdb://me:secret@db:8086/o/b"),
        lambda: address_of_url("influxdb://db:8086/o/b?token=secret"),
        lambda: address_of_settings(InfluxDBSettings(url="http://me:secret@db:8086", org="o", bucket="b")),
    ):
        with pytest.raises(UsageError) as caught:
            given()
        assert "secret" not in str(caught.value)


def test_settings_without_a_url_project_nowhere_and_half_an_address_is_refused() -> None:
    assert address_of_settings(InfluxDBSettings()) is None
    with pytest.raises(UsageError, match="bucket is empty"):
        address_of_settings(InfluxDBSettings(url="http://db:8086", org="o"))
    with pytest.raises(UsageError, match="not the address of a server"):
        address_of_settings(InfluxDBSettings(url="db:8086", org="o", bucket="b"))


def test_a_token_comes_from_the_environment_or_a_file_and_is_never_shown(
    clean_environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("token").write_text("from file\n")
    Path("config.toml").write_text(
        '[influxdb]\nurl = "http://db:8086"\norg = "o"\nbucket = "b"\ntoken_file = "token"\nbatch_points = 7\n'
    )
    address = address_of_settings(load_settings().values.influxdb)
    assert address is not None
    assert (address.token, address.batch_points) == ("from file", 7)
    monkeypatch.setenv("GRAPHTIDE_INFLUXDB__TOKEN", "secret")
    settings = load_settings().values
    address = address_of_settings(settings.influxdb)
    assert address is not None
    assert address.token == address_of_url("influxdb://db/o/b").token == "secret"
    assert "secret" not in repr(address) + repr(settings) + str(settings.model_dump(mode="json"))


def test_a_token_file_that_cannot_be_read_is_named(clean_environment: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read from nowhere: No such file"):
        address_of_url("influxdb://db/o/b", InfluxDBSettings(token_file="nowhere"))


def test_a_token_in_the_settings_file_is_refused_and_not_repeated(clean_environment: Path) -> None:
    Path("config.toml").write_text('[influxdb]\ntoken = "secret"\n')
    with pytest.raises(UsageError, match="does not belong in a settings file") as caught:
        load_settings()
    assert "secret" not in str(caught.value)
    assert "GRAPHTIDE_INFLUXDB__TOKEN" in str(caught.value)
    assert "config.toml, line 2" in str(caught.value)
    assert InfluxDBSettings(token=SecretStr("s")).token.get_secret_value() == "s"


@pytest.mark.parametrize("token", ["tok\u20acen", "to\nken", "to\x7fken"])
def test_a_token_that_cannot_be_sent_is_refused_and_not_repeated(clean_environment: Path, token: str) -> None:
    Path("token").write_text(token)
    for settings, place in (
        (InfluxDBSettings(token=SecretStr(token)), "GRAPHTIDE_INFLUXDB__TOKEN"),
        (InfluxDBSettings(token_file="token"), "[influxdb] token_file"),
    ):
        with pytest.raises(UsageError, match="a character that cannot be sent") as caught:
            address_of_url("influxdb://db/o/b", settings)
        assert caught.value.place == place
        assert caught.value.fix
        assert token not in str(caught.value)
    assert address_of_url("influxdb://db/o/b", InfluxDBSettings(token=SecretStr("me:p\xe4ss"))).token == "me:p\xe4ss"


@pytest.mark.parametrize("host", ["[::1", "db:port", "db:99999"])
def test_a_host_that_cannot_be_read_is_told(host: str) -> None:
    for given in (
        lambda: address_of_url(f"influxdb://{host}/o/b"),
        lambda: address_of_settings(InfluxDBSettings(url=f"http://{host}", org="o", bucket="b")),
    ):
        with pytest.raises(UsageError, match="the host or the port") as caught:
            given()
        assert caught.value.fix
