"""What the log says, and what it must never say."""

import json
import logging

import pytest

from penstock.settings import logs
from penstock.settings.model import Log


@pytest.fixture
def root_logger():
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    levels = {name: logging.getLogger(name).level for name in logs.LOUD}
    yield root
    root.handlers[:], root.level = before
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def test_json_logs_are_one_object_per_line_with_ids_and_without_the_error_text(root_logger, capsys):
    logs.configure(Log(format="json"), role="embed")
    try:
        int("a tenant's secret")
    except ValueError as error:
        logs.log_failure(
            logging.getLogger("x"), "The batch failed", error, extra={"batch": "batch_1", "tenant": "acme"}
        )

    [line] = capsys.readouterr().err.splitlines()
    entry = json.loads(line)
    assert (entry["level"], entry["role"], entry["batch"], entry["tenant"]) == ("error", "embed", "batch_1", "acme")
    assert entry["message"].startswith("The batch failed: ValueError at test_logs.py:")
    assert "secret" not in line


def test_json_logs_name_the_event(root_logger, capsys):
    logs.configure(Log(format="json"), role="api")
    logging.getLogger("x").warning("The cache does not answer.", extra={"action": "cache_unavailable"})
    assert json.loads(capsys.readouterr().err)["action"] == "cache_unavailable"


def test_text_logs_end_with_the_ids(root_logger, capsys):
    logs.configure(Log(), role="embed")
    logging.getLogger("x").info("Chunked %d documents.", 3, extra={"tenant": "acme", "batch": "batch_1"})

    assert capsys.readouterr().err.endswith("info    Chunked 3 documents.  tenant=acme batch=batch_1\n")


def test_tracebacks_come_at_level_debug_only(root_logger, capsys):
    for level, expected in (("debug", True), ("info", False)):
        logs.configure(Log(level=level), role="embed")
        try:
            int("no")
        except ValueError:
            logging.getLogger("x").exception("Failed.")
        said = capsys.readouterr().err
        assert ("Traceback" in said) is expected
        assert ("Failed. (ValueError at test_logs.py:" in said) is not expected
