"""Rewrites what the server advises to a program, an HTTP request, as what a person types: a command."""

import re

REQUEST = re.compile(r": (?:GET|POST|PUT|PATCH|DELETE) /\S+ \w.*$")
MISSING = re.compile(
    r"^(?:tenant '(?P<tenant>[a-z0-9_-]+)' has no collection '(?P<collection>[a-z0-9_-]+)'"
    r"|there is no tenant '(?P<unknown>[a-z0-9_-]+)'|there is no job '(?P<job>[^']*)')"
)
SHOWN = "the list of schedules shows the ids"
NO_SCHEDULE = re.compile(r"^there is no schedule '")
NEVER = re.compile(r"^(?P<said>collection '(?P<collection>[a-z0-9_-]+)' was never embedded again)")


def in_commands(message: str) -> str:
    """Return the message of a server with the command that mends it, where there is one."""
    if NO_SCHEDULE.match(message):
        return message.replace(SHOWN, "`penstock schedules list` shows the ids, with --all those of everything")
    never = NEVER.match(message)
    if never is not None:
        return f"{never['said']}: `penstock reembed {never['collection']} --model …` begins"
    missing = MISSING.match(message)
    if missing is None:
        return message
    said = REQUEST.sub("", message)
    if missing["collection"]:
        tenant = "" if missing["tenant"] == "default" else f" --tenant {missing['tenant']}"
        return f"{said}: `penstock collections create {missing['collection']}{tenant}` makes one"
    if missing["unknown"]:
        return f"{said}: `penstock tenants create {missing['unknown']}` makes one"
    return f"{said}: `penstock jobs list` shows the ids"
