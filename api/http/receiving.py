"""Refuses URLs that this server may not tell anything, in words that name the field."""

from penstock.pipeline.receivers import InvalidReceiver, check_receiver

from ..errors import Refused


def check_webhook(url: str, *, private: bool, param: str = "webhook_url") -> None:
    """Return if the URL may be told. ``private``: the setting ``webhooks.private``. Raises Refused."""
    try:
        check_receiver(url, private=private)
    except InvalidReceiver as error:
        raise Refused(f"{param} {error}", code="invalid_webhook_url", param=param) from error
