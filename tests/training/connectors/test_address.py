import pytest

from registry.errors import InvalidInput
from training.connectors.address import check_same_host, help_desk_address, own_address


def test_an_account_is_on_its_own_host() -> None:
    assert help_desk_address("my-shop2", "zendesk.com") == "https://my-shop2.zendesk.com"


@pytest.mark.parametrize(
    "subdomain",
    [
        "",
        "evil.example#",
        "a.b",
        "a/b",
        "a@b",
        "a:1",
        "-a",
        "a-",
        "A",
        "ä",
        "a\n",
        "a" * 64,
        "a?b",
        "a%2e",
        "127.0.0.1",
        "a_b",
    ],
)
def test_a_subdomain_cannot_name_another_host(subdomain: str) -> None:
    with pytest.raises(InvalidInput, match="no subdomain"):
        help_desk_address(subdomain, "zendesk.com")


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:80", "http://localhost:8080", "http://[::1]:9/", "https://127.8.8.8"]
)
def test_a_stand_in_is_on_this_machine(url: str) -> None:
    assert help_desk_address("a", "zendesk.com", base_url=url) == url.rstrip("/")


@pytest.mark.parametrize(
    "url",
    [
        "http://10.0.0.1", "https://evil.example", "http://169.254.169.254", "http://localhost.evil.example",
        "http://0.0.0.0", "http://127.0.0.1.nip.io", "http://2130706433",
    ],
)  # fmt: skip
def test_or_it_is_said_that_it_is_not(url: str) -> None:
    with pytest.raises(InvalidInput, match="not on this machine"):
        help_desk_address("a", "zendesk.com", base_url=url)
    assert help_desk_address("a", "zendesk.com", base_url=url, allow_http=True) == url


@pytest.mark.parametrize(
    "url",
    [
        "", "127.0.0.1", "ftp://127.0.0.1", "file:///etc/passwd", "http://", "http://a@127.0.0.1", "http://127.0.0.1/x",
        "http://127.0.0.1?x", "http://127.0.0.1#x", "http://127.0.0.1:0", "http://127.0.0.1:x", "http://[::1",
    ],
)  # fmt: skip
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(InvalidInput, match="is none"):
        help_desk_address("a", "zendesk.com", base_url=url, allow_http=True)


def test_ones_own_help_desk() -> None:
    assert own_address("https://desk.example/") == "https://desk.example"
    assert own_address("http://127.0.0.1:3000") == "http://127.0.0.1:3000"
    assert own_address("http://desk.example", allow_http=True) == "http://desk.example"
    with pytest.raises(InvalidInput, match="not https"):
        own_address("http://desk.example")


@pytest.mark.parametrize(
    "url",
    [
        "https://b.zendesk.com/x", "http://a.zendesk.com/x", "https://a.zendesk.com:444/x", "https://a.zendesk.com@evil/x",
        "//evil/x", "evil", "https://a.zendesk.com.evil/x", "https://[", "https://x@a.zendesk.com/",
    ],
)  # fmt: skip
def test_further_pages_stay_on_the_host(url: str) -> None:
    with pytest.raises(InvalidInput, match="another host"):
        check_same_host("https://a.zendesk.com", url)
    assert check_same_host("https://a.zendesk.com", "https://A.zendesk.com:443/y") == "https://A.zendesk.com:443/y"
