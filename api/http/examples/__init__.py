"""One example of every request and answer, shown in the OpenAPI description. A test reads each as its type."""

from . import collections, documents, installation, jobs, questions, reembeddings, schedules, searches, snapshots

EXAMPLES = {
    **installation.EXAMPLES,
    **collections.EXAMPLES,
    **snapshots.EXAMPLES,
    **documents.EXAMPLES,
    **jobs.EXAMPLES,
    **reembeddings.EXAMPLES,
    **schedules.EXAMPLES,
    **searches.EXAMPLES,
    **questions.EXAMPLES,
}
