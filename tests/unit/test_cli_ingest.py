"""What `penstock ingest` sends, what it does not, and what it makes of the server's answers."""

import json

import pytest

from penstock.api.cli.arguments import parse_chunking, parse_metadata, parse_metric
from penstock.api.cli.exits import UsageError
from penstock.api.cli.folders import walk
from penstock.api.cli.following import Progress, said
from penstock.api.cli.outcomes import Outcome, as_plain
from penstock.api.cli.uploading import REQUEST_BYTES, REQUEST_FILES, Sending, content_hash, send
from penstock.client import Busy, Chunking, Conflict, Invalid, ServerError, TooLarge, Unreachable
from penstock.client import content_hash as client_hash
from penstock.client.wire import Job, Known, Submitted


def job(**fields) -> Job:
    known = {
        "id": "job_1",
        "collection": "default",
        "state": "running",
        "created_at": 0.0,
        "finished_at": None,
        "documents": {},
        "chunks_total": 0,
        "chunks_embedded": 0,
        "chunks_indexed": 0,
        "cache_hits": 0,
        "unchanged": 0,
        "token": None,
    }
    return Job.model_validate(known | fields)


class Server:
    """What the client's methods for sending do, without a server."""

    def __init__(self) -> None:
        self.documents: dict[str, str] = {}
        self.requests: list[list[str]] = []
        self.job_ids: list[str | None] = []
        self.failures: list[BaseException] = []
        self.refuses = lambda upload: None
        self.dead: set[str] = set()
        self.told: list[str | None] = []

    def compare(self, collection, hashes):
        assert len(hashes) <= 1000
        known = [source for source, digest in hashes.items() if self.documents.get(source) == digest]
        return Known(known=known, dead=[source for source in hashes if source in self.dead])

    def upload(self, collection, uploads, *, job_id=None, idempotency_key=None, priority="normal", webhook_url=None):
        self.told.append(webhook_url)
        self.requests.append([upload.source for upload in uploads])
        if self.failures:
            raise self.failures.pop(0)
        for upload in uploads:
            if error := self.refuses(upload):
                raise error
        self.job_ids.append(job_id)
        unchanged = 0
        for upload in uploads:
            digest = client_hash(upload.content if isinstance(upload.content, bytes) else upload.content.read_bytes())
            unchanged += self.documents.get(upload.source) == digest
            self.documents[upload.source] = digest
        return Submitted(job=job(), accepted=len(uploads) - unchanged, replaced=0, unchanged=unchanged)


@pytest.fixture
def server():
    return Server()


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "papers"
    made.mkdir()
    for number in range(5):
        (made / f"{number}.txt").write_text(f"text {number}")
    return made


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr("penstock.api.cli.uploading.time.sleep", lambda _: None)


def sent(server, folder, metadata=None, **options):
    return sent_files(server, walk([folder]).found, metadata, **options)


def sent_files(server, files, metadata=None, **options):
    sending = Sending(files=len(files), **options)
    send(server, "default", files, metadata=metadata or {}, sending=sending, on_progress=lambda: None)
    return sending


def test_an_unchanged_folder_is_not_sent_again(server, folder):
    first = sent(server, folder)
    again = sent(server, folder)

    assert (first.accepted, first.unchanged, first.job_id) == (5, 0, "job_1")
    assert (again.accepted, again.unchanged, again.job_id) == (0, 5, None)
    assert len(server.requests) == 1


def test_only_what_changed_is_sent(server, folder):
    sent(server, folder)
    (folder / "3.txt").write_text("other")
    assert sent(server, folder).accepted == 1
    assert server.requests[-1] == ["papers/3.txt"]


def test_with_metadata_the_server_decides_what_is_unchanged(server, folder):
    sent(server, folder)
    again = sent(server, folder, {"lang": "en"})
    assert (again.accepted, again.unchanged) == (0, 5)
    assert len(server.requests) == 2


def test_a_receiver_is_told_at_once_where_nothing_is_new(server, folder):
    """The server makes a job that is done of one file that it knows."""
    sent(server, folder)
    (folder / "4.txt").write_text("4")
    sent(server, folder)
    again = sent(server, folder, webhook_url="https://example.com/hook")
    assert server.requests[2:] == [["papers/4.txt"]]  # the smallest
    assert (again.accepted, again.unchanged, again.examined, again.job_id) == (0, 5, 5, "job_1")
    assert server.told == [None, None, "https://example.com/hook"]


def test_a_file_that_failed_before_stays_dead_until_it_is_asked_for(server, folder):
    server.dead = {"papers/1.txt"}
    first = sent(server, folder)
    assert (first.accepted, first.dead, first.examined) == (4, ["papers/1.txt"], 5)
    assert sent(server, folder, {"lang": "en"}).dead == ["papers/1.txt"]
    assert not any("papers/1.txt" in request for request in server.requests)
    assert Outcome(first).exit_code == 3
    assert as_plain(Outcome(first))["dead"] == ["papers/1.txt"]

    again = sent(server, folder, retry_dead=True)
    assert (again.accepted, again.dead, again.unchanged) == (1, [], 4)
    assert sent(server, folder, {"lang": "en"}, retry_dead=True).dead == []


def test_requests_are_bounded_and_belong_to_one_job(server, tmp_path):
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(REQUEST_FILES + 7):
        (folder / f"{number:04}.txt").write_text(str(number))
    for number in range(3):
        (folder / f"large-{number}.bin").write_bytes(bytes([number]) * (REQUEST_BYTES // 2 + 1))

    sending = sent(server, folder)

    assert sending.accepted == REQUEST_FILES + 10
    assert sending.examined == sending.files
    assert max(len(request) for request in server.requests) == REQUEST_FILES
    large = [[source for source in request if "large" in source] for request in server.requests]
    assert max(map(len, large)) == 1
    assert server.job_ids == [None] + ["job_1"] * (len(server.requests) - 1)


def test_one_refused_file_does_not_hold_up_the_others(server, folder):
    server.refuses = lambda upload: Invalid("bad", code="invalid_name") if upload.source.endswith("3.txt") else None
    sending = sent(server, folder)
    assert sending.accepted == 4
    assert [(refusal.source, refusal.code, refusal.reason) for refusal in sending.refused] == [
        ("papers/3.txt", "invalid_name", "bad")
    ]


def test_a_request_above_a_limit_is_sent_in_halves(server, folder):
    upload = server.upload

    def limited(collection, uploads, *, job_id=None, **terms):
        if len(uploads) > 2:
            raise TooLarge("too many")
        return upload(collection, uploads, job_id=job_id, **terms)

    server.upload = limited
    sending = sent(server, folder)
    assert sending.accepted == 5
    assert sending.refused == []


def test_a_busy_or_restarting_server_is_asked_again(server, folder):
    server.failures = [Busy("later", retry_after_s=9.0), Unreachable("gone")]
    assert sent(server, folder).accepted == 5
    assert len(server.requests) == 3


def test_a_server_that_stays_away_ends_it(server, folder):
    server.failures = [Unreachable("gone")] * 9
    with pytest.raises(Unreachable):
        sent(server, folder)


def test_a_cancelled_job_takes_no_more(server, folder):
    server.failures = [Conflict("job job_1 is cancelled")]
    with pytest.raises(Conflict):
        sent(server, folder)


def test_a_file_that_vanishes_is_skipped_with_a_reason(server, folder):
    files = walk([folder]).found
    (folder / "2.txt").unlink()
    sending = sent_files(server, files)
    assert sending.accepted == 4
    assert [(skipped.path.name, skipped.reason) for skipped in sending.skipped] == [
        ("2.txt", "no such file or directory")
    ]


def test_what_has_no_answer_yet_is_known_as_such(server, folder):
    files, sending = walk([folder]).found, Sending(files=5)
    for failure, under_way in ((KeyboardInterrupt(), 5), (Conflict("cancelled"), 0), (ServerError("failed"), 5)):
        server.failures = [failure]
        with pytest.raises(type(failure)):
            send(server, "default", files, metadata={}, sending=sending, on_progress=lambda: None)
        assert sending.under_way == under_way


def test_files_are_hashed_as_the_client_does(folder):
    assert content_hash(folder / "1.txt") == client_hash(b"text 1")


@pytest.mark.parametrize(
    ("given", "fields"),
    [
        (["lang=en"], {"lang": "en"}),
        (["year=2024", "ratio=0.5", "draft=true"], {"year": 2024, "ratio": 0.5, "draft": True}),
        (["a=b=c", " spaced =x"], {"a": "b=c", "spaced": "x"}),
        (['{"tags": ["a", "b"]}', "lang=en"], {"tags": ["a", "b"], "lang": "en"}),
        (["a=NaN", "b=Infinity", "c=1e999"], {"a": "NaN", "b": "Infinity", "c": "1e999"}),
        (['x={"y": 1}', 'list=["a", 2]', "nothing=null"], {"x": {"y": 1}, "list": ["a", 2], "nothing": None}),
        (['zip="0815"', 'on="true"', 'none="null"'], {"zip": "0815", "on": "true", "none": "null"}),
        (
            ["version=1.2.3", "zip=0815", "x={y:1}", "empty="],
            {"version": "1.2.3", "zip": "0815", "x": "{y:1}", "empty": ""},
        ),
        (["deep=" + "[" * 100_000], {"deep": "[" * 100_000}),
    ],
)
def test_metadata_is_written_as_words_or_json(given, fields):
    assert parse_metadata(given) == fields


@pytest.mark.parametrize("given", ["lang", "=en", "{broken", '{"a": }', '{"a": NaN}', '{"a": 1e999}'])
def test_metadata_of_another_form_is_wrong_usage(given):
    with pytest.raises(UsageError, match="--metadata"):
        parse_metadata([given])


def test_chunking_is_a_strategy_with_sizes():
    assert parse_chunking(None) is None
    assert parse_chunking("auto") == Chunking()
    assert parse_chunking("tokens:200:20") == Chunking(strategy="tokens", size_tokens=200, overlap_tokens=20)
    for wrong in ("words", "tokens:many", "tokens:1:2:3", "tokens:0"):
        with pytest.raises(UsageError, match="--chunking"):
            parse_chunking(wrong)


def test_an_unknown_metric_is_wrong_usage():
    assert parse_metric("dot") == "dot"
    assert parse_metric(None) is None
    with pytest.raises(UsageError, match="cosine, dot, l2"):
        parse_metric("cos")


def test_progress_sums_jobs():
    first = job(
        documents={"indexed": 3, "failed": 1}, chunks_total=40, chunks_embedded=40, chunks_indexed=40, cache_hits=2
    )
    second = job(documents={"queued": 2, "embedding": 4}, chunks_total=40, chunks_embedded=10)
    progress = Progress.of([first, second])

    assert (progress.documents, progress.finished, progress.failed, progress.unchunked) == (10, 4, 1, 2)
    assert (progress.chunks, progress.chunks_embedded, progress.cache_hits) == (40, 50, 2)


def test_the_time_left_is_that_of_the_last_job_and_unknown_while_one_is():
    slow, quick = job(left_s=9.0, chunks_per_s=2.0), job(left_s=3.0, chunks_per_s=5.5)
    assert Progress.of([slow, quick]).left_s == 9.0
    assert Progress.of([slow, quick]).chunks_per_s == 7.5
    assert Progress.of([slow, job(state="done")]).left_s == 9.0
    assert Progress.of([slow, job()]).left_s is None
    assert Progress.of([job(state="done")]).left_s is None


def test_the_line_beside_the_bar_has_every_number():
    progress = Progress.of(
        [
            job(
                documents={"indexed": 12, "failed": 1, "embedding": 34},
                chunks_total=900,
                chunks_embedded=310,
                cache_hits=1,
            )
        ]
    )
    line = said(progress)
    for part in ("13/47 documents", "310 chunks", "chunks/s", "left", "1 cache hit", "1 failed"):
        assert part in line
    done = Progress.of(
        [job(state="done", documents={"indexed": 1}, chunks_total=1, chunks_embedded=1, chunks_indexed=1)]
    )
    assert "left" not in said(done)
    assert "1/1 document " in said(done)


def test_json_of_an_outcome_has_a_stable_shape(server, folder):
    server.refuses = lambda upload: Invalid("bad", code="no") if upload.source.endswith("0.txt") else None
    outcome = Outcome(sent(server, folder), jobs=[job(state="done", documents={"indexed": 4})], waited=True, took_s=1.5)
    shape = json.loads(json.dumps(as_plain(outcome)))
    known = {"accepted", "new", "replaced", "unchanged", "failed", "dead", "skipped", "job_id", "jobs", "took_s"}
    assert set(shape) == known
    assert shape["job_id"] == "job_1"
    assert shape["failed"] == [{"source": "papers/0.txt", "stage": "submit", "code": "no", "reason": "bad"}]
    assert outcome.exit_code == 3


def test_a_large_file_that_vanishes_while_it_is_sent_is_skipped_alone(server, folder, monkeypatch):
    for module in ("api.cli.uploading", "client.uploads"):
        monkeypatch.setattr(f"penstock.{module}.REQUEST_BYTES", 6)
    (folder / "2.txt").write_text("a long text")
    upload = server.upload

    def vanishing(collection, uploads, *, job_id=None, **terms):
        (folder / "2.txt").unlink(missing_ok=True)
        return upload(collection, uploads, job_id=job_id, **terms)

    server.upload = vanishing
    sending = sent(server, folder)
    assert [(one.path.name, one.reason) for one in sending.skipped] == [("2.txt", "no such file or directory")]
    assert (sending.accepted, sending.examined, sending.under_way) == (4, 5, 0)


def test_every_file_counts_as_examined_once_however_it_ends(server, folder):
    server.refuses = lambda upload: Invalid("no") if upload.source.endswith("1.txt") else None
    server.failures = [Invalid("no")]
    done = sent(server, folder)
    assert (done.examined, done.accepted, len(done.refused)) == (5, 4, 1)

    server.documents.clear()
    sending = Sending(files=5)
    server.failures = [Invalid("one of them"), Unreachable("gone"), *[Unreachable("gone")] * 4]
    with pytest.raises(Unreachable):
        send(server, "c", walk([folder]).found, metadata={}, sending=sending, on_progress=lambda: None)
    assert (sending.examined, sending.under_way) == (0, 2)


def test_what_may_have_been_taken_stays_so_when_the_server_is_busy_later(server, folder):
    server.failures = [Unreachable("no answer"), *[Busy("busy", retry_after_s=0)] * 4]
    sending = Sending(files=5)
    with pytest.raises(Busy):
        send(server, "c", walk([folder]).found, metadata={}, sending=sending, on_progress=lambda: None)
    assert sending.under_way == 5


def test_sending_waits_for_room_as_long_as_it_takes_and_says_so(server, folder, monkeypatch):
    slept: list[float] = []
    monkeypatch.setattr("penstock.api.cli.uploading.time.sleep", slept.append)
    sending, notes, files = Sending(), [], walk([folder]).found
    full = Busy("10 documents wait, and 10 may", code="backlog_full", retry_after_s=7.0)
    server.failures = [full] * 20
    options = {"metadata": {}, "sending": sending, "on_progress": lambda: notes.append(sending.waiting)}
    send(server, "notes", files, **options)
    assert sending.accepted == len(files)
    assert slept == [7.0] * 20
    assert "10 documents wait, and 10 may; trying again in 7 s" in notes
    assert notes[-1] is None
