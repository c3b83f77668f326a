"""What the end of a process means, for who reads the log: how it ended, why that happens, and what to do next."""

import signal

WHY = {
    signal.SIGBUS: "a file that it had mapped became shorter, or the disk failed under it: run `penstock doctor`, "
    "which reads every file, and look into the kernel's log",
    signal.SIGKILL: "probably the machine or the container ran out of memory: the kernel's log (dmesg) says so; "
    "give it more, or run fewer processes, see `penstock config show`",
    signal.SIGSEGV: "a defect, or memory that fails: please report it with the lines before this one",
}


def told_death(status: int) -> str:
    """Return how a process ended, from its exit status, which is a signal's number below zero."""
    if status >= 0:
        return f"ended with exit code {status}"
    try:
        killer = signal.Signals(-status)
    except ValueError:
        return f"was killed by signal {-status}"
    why = WHY.get(killer)
    return f"was killed by {killer.name}" + (f" ({why})" if why else "")
