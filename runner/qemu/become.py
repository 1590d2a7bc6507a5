"""The program between a plain start and the process that was asked for: it confines itself, and becomes that process.

`python -I -S become.py PARENT CONFINEMENT SHIM PROGRAM ARGUMENT…`. The confinement is user, group, further group, and the bounds of open
files, of a file's bytes and of the memory's, parted by commas, -1 for none. The shim is the number of a descriptor of the shared
object that QEMU needs to be exact (host_setup/host/turns.c), -1 where there is none. In a process of its own, because nothing but
the most primitive is safe between a fork and an exec in a program with threads; and no shell, whose every way to read its
arguments would be one more thing to think of. The same as `confine()` in host_setup/host/stem.c.
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys

# asm/signal.h, of all that Linux runs on but MIPS. The module `signal` takes as long to import as all the rest.
_SIGKILL, _SIGPIPE, _SIG_DFL = 9, 13, 0

# linux/prctl.h
_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38

# As in host_setup/host/stem.c: the number of a descriptor of the shared object.
TURNS_VARIABLE = "RTFLEET_TURNS"

# As shells have it.
_EXIT_CANNOT = 126
_EXIT_NO_PROGRAM = 127


def become(parent: int, confinement: str, shim: int, command: list[str]) -> None:
    """Confine this process and replace its program; does not return.

    Raises:
        OSError: it could not be confined, or there is no such program.
    """
    program = os.open(command[0], os.O_RDONLY | os.O_CLOEXEC)
    uid, gid, group, n_open, file_bytes, memory_bytes = map(int, confinement.split(","))
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_NOFILE, n_open)
    _limit(resource.RLIMIT_FSIZE, file_bytes)
    _limit(resource.RLIMIT_DATA, memory_bytes)
    # Python ignores SIGXFSZ, and so shall the program: writing too much is an error, not the end. SIGPIPE it expects as ever.
    libc = ctypes.CDLL(None, use_errno=True)
    libc.signal(_SIGPIPE, ctypes.c_void_p(_SIG_DFL))
    if uid >= 0:
        os.setgroups([group] if group >= 0 else [])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    _prctl(libc, _PR_SET_NO_NEW_PRIVS, 1)
    # Last: the kernel forgets it when the user changes.
    _prctl(libc, _PR_SET_PDEATHSIG, _SIGKILL)
    if os.getppid() != parent:  # it died before that was in force
        os._exit(_EXIT_CANNOT)
    if shim >= 0:
        os.environ.update(preloading(shim, dict(os.environ)))
    try:
        os.execv(command[0], command)  # noqa: S606 - that it starts without a shell is the point
    except PermissionError:  # it lies in a folder of the user's that this process was
        os.set_inheritable(program, True)  # a script's interpreter opens it once more
        os.execve(program, command, os.environ)  # noqa: S606 - as above


def preloading(shim: int, environment: dict[str, str]) -> dict[str, str]:
    """What the environment has more to have the shim loaded: by descriptor, for its folder is the runner's, and a path that holds a
    space or a colon would be two to the dynamic linker.
    """
    preloaded = [f"/proc/self/fd/{shim}", environment.get("LD_PRELOAD", "")]
    return {"LD_PRELOAD": ":".join(filter(None, preloaded)), TURNS_VARIABLE: str(shim)}


def _limit(what: int, most: int) -> None:
    """Lower a limit; what is lower already, and a negative number, change nothing."""
    _, hard = resource.getrlimit(what)
    if most >= 0 and (hard == resource.RLIM_INFINITY or most < hard):
        resource.setrlimit(what, (most, most))


def _prctl(libc: ctypes.CDLL, option: int, value: int) -> None:
    if libc.prctl(option, *map(ctypes.c_ulong, (value, 0, 0, 0))) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def main() -> None:
    """The command line."""
    parent, confinement, shim, *command = sys.argv[1:]
    try:
        become(int(parent), confinement, int(shim), command)
    except FileNotFoundError as exc:
        print(f"{command[0]}: {exc.strerror}", file=sys.stderr, flush=True)
        os._exit(_EXIT_NO_PROGRAM)
    except (OSError, ValueError) as exc:
        print(f"{command[0]}: cannot be started: {exc}", file=sys.stderr, flush=True)
        os._exit(_EXIT_CANNOT)


if __name__ == "__main__":
    main()
