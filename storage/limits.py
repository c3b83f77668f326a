"""What no setting changes: how large a vector, a search and the words of a document may be. Numbers only.

docs/limits.md lists these and the settings of ``[limits]`` for people; tests/unit/test_limits.py compares the two.
"""

MIN_DIMENSIONS, MAX_DIMENSIONS = 256, 4_096

MAX_K = 1_000
MAX_EF = 4_096
MAX_QUERY_CHARACTERS = 65_536

MAX_COLLECTIONS_PER_TENANT = 1_000  # unless a setting says otherwise

MAX_SCHEDULES_PER_TENANT = 1_000  # and of the installation itself

MAX_KEPT_VERSIONS = 1_000_000  # of a collection, by retention; a larger number may be none of the catalog's

MAX_SOURCE_BYTES = 2_048  # PostgreSQL indexes no more than 2,704 bytes per row
MAX_FILENAME_CHARACTERS = 4_096  # at least those of a source, from which it may be taken
MAX_MEDIA_TYPE_CHARACTERS = 255
MAX_TITLE_CHARACTERS = 4_096

EARLIEST_S, LATEST_S = -62_135_596_800.0, 253_402_300_799.0  # the years 1 to 9999, which calendars can show

MAX_REMOVED_AT_ONCE = 10_000  # ids or sources that one request names; a filter may accept more
MAX_IDEMPOTENCY_KEY_CHARACTERS = 255

MAX_JUDGEMENTS = 10_000  # of a collection
MAX_JUDGED_QUERY_CHARACTERS = 2_000
MAX_GRADE = 10
