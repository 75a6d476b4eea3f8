"""Images behind addresses: from allowed hosts alone, never from private ones, whatever names and redirects do."""

import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from chiasm.errors import ChiasmError, DataError
from chiasm.serving.fetching import AT_A_TIME, Fetcher, is_public
from chiasm.serving.messages import RequestImages
from chiasm.serving.worker import Full

PUBLIC, OTHER = "93.184.216.34", "1.1.1.1"


class Site(BaseHTTPRequestHandler):
    """Hosts of all names on this machine: /image, /to?ADDRESS, and ways to be a nuisance."""

    def do_GET(self):
        path, _, query = self.path.partition("?")
        self.server.seen.append((self.headers["host"], self.path))
        if path == "/to":
            self.send_response(302)
            self.send_header("location", query)
            self.end_headers()
            return
        if path == "/missing":
            self.send_error(404)
            return
        body = b"x" * (5000 if path == "/large" else 100)
        self.send_response(200)
        if path == "/packed":
            self.send_header("content-encoding", "gzip")
        if path != "/endless":
            self.send_header("content-length", str(len(body) + 50 * (path == "/broken")))
        self.end_headers()
        if path == "/slow":
            for each in body:
                self.wfile.write(bytes([each]))
                time.sleep(0.02)
        elif path == "/endless":
            for _ in range(1000):
                self.wfile.write(body)
        else:
            self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def site():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    server.seen = []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


class Net:
    """Names and their addresses, all of which lead to the site."""

    def __init__(self, site, **names):
        self.site, self.names = site, names
        self.asked, self.connected = [], []

    def resolve(self, host, port):
        self.asked.append(host)
        addresses = self.names[host.partition(".")[0]]
        return addresses.pop(0) if isinstance(addresses[0], list) else addresses

    def connect(self, address, port, seconds):
        self.connected.append((address, port))
        return socket.create_connection(self.site.server_address, seconds)

    def fetcher(self, *hosts, **options):
        options = {"most_bytes": 1000, "seconds": 60, **options}
        return Fetcher(hosts, resolve=self.resolve, connect=self.connect, **options)


def test_an_image_comes_from_an_allowed_host_by_its_name(site):
    net = Net(site, images=[PUBLIC])
    fetcher = net.fetcher("images.example")
    assert fetcher.fetch("http://Images.Example/image?a=b#c", "it") == b"x" * 100
    assert site.seen[-1] == ("images.example", "/image?a=b")
    assert net.connected == [(PUBLIC, 80)]


@pytest.mark.parametrize(
    "url",
    [
        "http://other.example/image",
        "http://images.example.evil.example/image",
        "http://images.example:8080/image",
        "http://images.example@other.example/image",
        "http://other.example\\@images.example/image",
        "http://user:word@images.example/image",
        "ftp://images.example/image",
        "file:///etc/passwd",
        "http://images.example/\r\nx: y",
        "http://images.exämple/image",
        "http://images.example:port/image",
        "http://[::1/image",
        "http:///image",
        "http://127.0.0.1/image",
        "",
    ],
)
def test_no_other_address_is_even_looked_up(site, url):
    net = Net(site, images=[PUBLIC])
    with pytest.raises(DataError, match=r"^it: "):
        net.fetcher("images.example").fetch(url, "it")
    assert (net.asked, net.connected) == ([], [])


def test_a_port_is_allowed_by_name(site):
    net = Net(site, images=[PUBLIC])
    net.fetcher("images.example:8080").fetch("http://images.example:8080/image", "it")
    assert site.seen[-1][0] == "images.example:8080"
    with pytest.raises(DataError):
        net.fetcher("images.example:8080").fetch("http://images.example/image", "it")


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0"),
        *("224.0.0.1", "255.255.255.255", "192.0.2.1", "240.0.0.1"),
        *(
            "::1",
            "::",
            "fe80::1",
            "fe80::1%eth0",
            "fc00::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
        ),
        *("64:ff9b::a00:1", "64:ff9b::101:101", "2002:7f00:1::", "::127.0.0.1", "2001:db8::1"),
    ],
)
def test_a_private_address_is_never_reached(site, address):
    assert not is_public(address)
    for addresses in ([address], [PUBLIC, address]):  # one of several is enough
        net = Net(site, images=addresses)
        with pytest.raises(DataError, match="not public"):
            net.fetcher("images.example").fetch("http://images.example/image", "it")
        assert net.connected == []


@pytest.mark.parametrize("address", [PUBLIC, OTHER, "2606:4700:4700::1111"])
def test_a_public_address_is_one(address):
    assert is_public(address)


def test_a_name_that_changes_its_address_is_asked_once(site):
    net = Net(site, images=[[PUBLIC], ["127.0.0.1"]])
    assert net.fetcher("images.example").fetch("http://images.example/image", "it")
    assert net.asked == ["images.example"]
    assert net.connected == [(PUBLIC, 80)]


@pytest.mark.parametrize(
    "location",
    ["http://127.0.0.1/image", "http://inner.example/image", "http://other.example/image", "file:///etc/passwd",
     "//inner.example/image", "gopher://images.example/"],
)  # fmt: skip
def test_a_redirect_is_checked_anew(site, location):
    net = Net(site, images=[PUBLIC], inner=["10.0.0.1"], other=[OTHER])
    with pytest.raises(DataError):
        net.fetcher("images.example", "inner.example").fetch(f"http://images.example/to?{location}", "it")
    assert [address for address, _ in net.connected] == [PUBLIC]


def test_a_redirect_to_the_same_name_is_resolved_anew(site):
    net = Net(site, images=[[PUBLIC], ["127.0.0.1"]])
    with pytest.raises(DataError, match="not public"):
        net.fetcher("images.example").fetch("http://images.example/to?/image", "it")


def test_redirects_among_allowed_hosts_are_followed_a_few_times(site):
    net = Net(site, images=[PUBLIC], other=[OTHER])
    fetcher = net.fetcher("images.example", "other.example")
    assert fetcher.fetch("http://images.example/to?http://other.example/to?/image", "it") == b"x" * 100
    with pytest.raises(DataError, match="more than 3 redirects"):
        fetcher.fetch("http://images.example/to?" * 4 + "http://images.example/image", "it")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("large", "more than 1,000 bytes"),
        ("endless", "more than 1,000 bytes"),
        ("slow", "longer than 0.2 seconds"),
        ("missing", "status 404"),
        ("packed", "packed"),
        ("broken", "IncompleteRead"),
    ],
)
def test_what_comes_has_limits(site, path, message):
    fetcher = Net(site, images=[PUBLIC]).fetcher("images.example", seconds=0.2 if path == "slow" else 60)
    with pytest.raises(DataError, match=message):
        fetcher.fetch(f"http://images.example/{path}", "it")


def test_more_at_a_time_than_may_are_told_to_come_again(site):
    fetcher = Net(site, images=[PUBLIC]).fetcher("images.example")
    for _ in range(AT_A_TIME):
        fetcher._slots.acquire()
    with pytest.raises(Full):
        fetcher.fetch("http://images.example/image", "it")


def test_a_host_that_is_none_is_a_sentence():
    for host in ("", "http://images.example", "*.example", "a b"):
        with pytest.raises(ChiasmError, match="no host"):
            Fetcher([host], most_bytes=1)


def test_what_is_fetched_must_be_an_image(site):
    images = RequestImages(2, 100, fetcher=Net(site, images=[PUBLIC]).fetcher("images.example"))
    with pytest.raises(DataError, match=r"messages\[0\] is not an image"):
        images.read("http://images.example/image", "messages[0]")
