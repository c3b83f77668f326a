"""Where webhooks may go, and how they are signed and checked."""

import base64
import ipaddress

import pytest

from penstock.client import Unauthorized, verify_webhook
from penstock.pipeline.receivers import InvalidReceiver, check_receiver, is_public
from penstock.workers.signing import signed_headers

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
OTHER = "whsec_" + base64.b64encode(bytes(32)).decode()


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/hook",
        "ftp://example.com/",
        "https://",
        "https:///hook",
        "https://user:password@example.com/",
        "https://example.com@10.0.0.1/",
        "https://example.com/#part",
        "https://example.com/a b",
        "https://example.com/\n",
        "https://exämple.com/",
        "https://example.com:99999/",
        "https://example..com/",
        "https://" + "x" * 64 + ".com/",
        "https://127.0.0.1/",
        "https://10.1.2.3/",
        "https://169.254.169.254/latest/meta-data",
        "https://[::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://[fe80::1%25eth0]/",
        "https://0.0.0.0/",
        "https://example.com/" + "x" * 3_000,
    ],
)
def test_a_url_that_could_lead_inside_is_refused(url):
    with pytest.raises(InvalidReceiver):
        check_receiver(url, private=False)


def test_an_operator_may_allow_what_is_inside():
    for url in ("http://127.0.0.1:8000/hook", "https://[::1]/", "http://receiver.internal/x?y=1"):
        check_receiver(url, private=True)
    check_receiver("https://example.com:8443/hook?token=1", private=False)
    with pytest.raises(InvalidReceiver, match="begin with https:// or http://"):
        check_receiver("file:///etc/passwd", private=True)


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.215.14", True),
        ("2606:2800:21f:cb07:6820:80da:af6b:8b2c", True),
        ("127.0.0.1", False),
        ("192.168.1.1", False),
        ("172.16.0.1", False),
        ("100.64.0.1", False),
        ("169.254.169.254", False),
        ("0.0.0.0", False),
        ("255.255.255.255", False),
        ("224.0.0.1", False),
        ("240.0.0.1", False),
        ("::", False),
        ("::1", False),
        ("fc00::1", False),
        ("fe80::1", False),
        ("ff02::1", False),
        ("fec0::1", False),
        ("::ffff:10.0.0.1", False),
        ("::ffff:93.184.215.14", True),
        ("64:ff9b::7f00:1", False),
        ("64:ff9b:1::1", False),
        ("2002:7f00:1::", False),
    ],
)
def test_public_addresses_are_told_from_others_also_when_wrapped(address, public):
    assert is_public(ipaddress.ip_address(address)) is public


def test_the_signature_is_that_of_standard_webhooks():
    # The example of their specification.
    secret = "whsec_plJ3nmyCDGBKInavdOK15jsl"
    body = b'{"event_type":"ping","data":{"success":true}}'
    headers = signed_headers([secret], message_id="msg_loFOjxBNrRLzqYUf", timestamp=1731705121, body=body)
    assert headers["webhook-signature"] == "v1,rAvfW3dJ/X/qxhsaXPOyyCGmRKsaKWcsNccKXlIktD0="


def test_a_receiver_takes_what_is_signed_and_nothing_else():
    body = b"{}"
    headers = signed_headers([OTHER, SECRET], message_id="msg_1", timestamp=1_000, body=body)

    def verify(secret: str = SECRET, *, at: float = 1_000.0, content: bytes = body, **changed: str) -> str:
        given = headers | {f"webhook-{name}": value for name, value in changed.items()}
        return verify_webhook(secret, given, content, clock=lambda: at)

    assert verify() == verify(OTHER) == verify(at=1_299.0) == "msg_1"
    for wrong in (
        lambda: verify("whsec_" + base64.b64encode(b"x" * 32).decode()),
        lambda: verify(content=b"{ }"),
        lambda: verify(at=1_301.0),
        lambda: verify(at=699.0),
        lambda: verify(timestamp="1001"),
        lambda: verify(timestamp="now"),
        lambda: verify(timestamp="\xb2"),
        lambda: verify(timestamp="9" * 400),
        lambda: verify(id="msg_2"),
        lambda: verify(signature=""),
        lambda: verify("whsec_§"),
    ):
        with pytest.raises(Unauthorized):
            wrong()
