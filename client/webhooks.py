"""What the client can do with webhooks: a part of `Penstock`; and how a receiver checks that one is genuine."""

import base64
import hashlib
import hmac
import re
import time
from collections.abc import Callable, Mapping

from .errors import Unauthorized
from .session import Session
from .transport import worded
from .wire import (
    Delivery,
    DeliveryList,
    WebhookDefault,
    WebhookDefaults,
    WebhookReceiver,
    WebhookSecret,
    WebhookTaken,
)

TOLERANCE_S = 300.0
TIMESTAMP = re.compile("[0-9]{1,12}")


class Webhooks(Session):
    """The methods of `Penstock` about webhooks."""

    def new_webhook_secret(self) -> WebhookSecret:
        """Make what webhooks are signed with, or another one in its place. It is never shown again."""
        return self._transport.post(self._path("webhooks", "secret"), WebhookSecret)

    def check_webhook(self, url: str) -> None:
        """Return if ``url`` would be taken as the ``webhook_url`` of a submission. Nothing is sent there.

        Raises:
            Invalid: this server may not tell it anything. Conflict: there is no secret to sign with yet.
        """
        with worded(WebhookReceiver):
            asked = WebhookReceiver(url=url)
        self._transport.ask(self._path("webhooks", "check"), WebhookTaken, body=asked.model_dump())

    def webhook_defaults(self) -> WebhookDefaults:
        """Return who is told of jobs that have no ``webhook_url`` of their own."""
        return self._transport.get(self._path("webhooks", "default"), WebhookDefaults)

    def set_webhook_default(self, url: str | None, *, collection: str | None = None) -> WebhookDefaults:
        """Have ``url`` told of every job that names nobody: of one collection, or of the tenant's others.

        None: nobody; of a collection, as the tenant has it. It is signed and tried again like any other.
        """
        with worded(WebhookDefault):
            asked = WebhookDefault(url=url, collection=collection)
        path = self._path("webhooks", "default")
        return self._transport.change("PUT", path, WebhookDefaults, body=asked.model_dump())

    def webhooks(self, *, state: str | None = None, after: str | None = None, limit: int = 100) -> DeliveryList:
        """Return one page of what receivers were told, newest first."""
        params = {"state": state, "after": after, "limit": limit}
        return self._transport.get(self._path("webhooks"), DeliveryList, params=params)

    def retry_webhook(self, delivery_id: str) -> Delivery:
        """Send one that is over again, under the same id."""
        return self._transport.post(self._path("webhooks", delivery_id, "retry"), Delivery)


def verify_webhook(
    secret: str, headers: Mapping[str, str], body: bytes, *, clock: Callable[[], float] = time.time
) -> str:
    """Return the id of a webhook that was signed with ``secret`` within the last five minutes.

    ``body``: the bytes as they came. Whoever has seen the id before has been told already.

    Raises:
        Unauthorized: it is not signed with this secret, or too old.
    """
    given = {name.lower(): value for name, value in headers.items()}
    message_id, timestamp = given.get("webhook-id", ""), given.get("webhook-timestamp", "")
    if not TIMESTAMP.fullmatch(timestamp) or abs(clock() - int(timestamp)) > TOLERANCE_S:
        raise Unauthorized("the webhook has no webhook-timestamp, or it is more than five minutes off")
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except ValueError as error:
        raise Unauthorized("the webhook secret is none: it begins with whsec_") from error
    digest = hmac.new(key, f"{message_id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    expected = f"v1,{base64.b64encode(digest).decode()}"
    signatures = given.get("webhook-signature", "").split()
    if not any(hmac.compare_digest(expected.encode(), one.encode()) for one in signatures):
        raise Unauthorized("the webhook is not signed with this secret")
    return message_id
