"""Examples: jobs, and who is told when they end."""

from penstock.client import wire

from .shared import JOB, Examples

DELIVERY = {
    "id": "msg_0192f1c0a5b6f4a5b6c7d8e9f0",
    "job_id": JOB["id"],
    "url": "https://example.com/hooks/penstock",
    "state": "waiting",
    "attempts": 1,
    "next_attempt_at": 1767225660.0,
    "status": 503,
    "error": "it answered 503",
    "created_at": 1767225602.5,
    "finished_at": None,
}
EXAMPLES: Examples = {
    wire.JobChange: {"budget_usd": 2.5},
    wire.Job: JOB,
    wire.JobList: {"data": [JOB], "has_more": False, "last_id": JOB["id"]},
    wire.Delivery: DELIVERY,
    wire.DeliveryList: {"data": [DELIVERY], "has_more": False, "last_id": DELIVERY["id"]},
    wire.WebhookReceiver: {"url": "https://example.com/hooks/penstock"},
    wire.WebhookTaken: {"url": "https://example.com/hooks/penstock"},
    wire.WebhookDefault: {"url": "https://example.com/hooks/penstock", "collection": "handbook"},
    wire.WebhookDefaults: {"url": None, "collections": {"handbook": "https://example.com/hooks/penstock"}},
    wire.WebhookSecret: {
        "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo=",
        "created_at": 1767225600.0,
        "former_until": None,
    },
}
