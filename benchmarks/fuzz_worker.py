"""Processes that try inputs one by one: what each ended in, within what time and memory, and what it touched."""

from __future__ import annotations

import json
import os
import random
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SUCCESS, SENTENCE, TRACEBACK = "success", "sentence", "traceback"
SLOW, LARGE, OUTSIDE = "too slow", "too large", "outside"
OUTCOMES = (SUCCESS, SENTENCE, TRACEBACK, SLOW, LARGE, OUTSIDE)
LONGEST_SENTENCE = 4000  # characters
TOGETHER = 25  # inputs of a process, after which another begins from the same state
PATIENCE = (
    6  # times the seconds of processor time, by the clock: what waits for ever, on a machine that is busy
)
NO_MEMORY = ("MemoryError", "allocate memory", "not enough memory", "bad_alloc")
PROGRAMS = {"git", "uname"}  # a run notes its commit, and `platform` asks for the processor
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

Action = Callable[[], object]


@dataclass(frozen=True)
class Limits:
    """Of one input. seconds: of work, or of sleep. memory: bytes beyond what the process held before."""

    seconds: float = 10.0
    memory: int = 2 << 30


@dataclass(frozen=True)
class Kind:
    """A kind of input. share: of all inputs, in parts. make: an input from a seed, in a folder of its own."""

    share: int
    make: Callable[[random.Random, Path], Action]


@dataclass(frozen=True)
class Result:
    number: int
    outcome: str
    detail: str = ""
    seconds: float = 0.0
    mib: float = 0.0


class NoSentence(Exception):
    """An error that is no sentence for the user."""


def tried(
    name: str, kind: Kind, numbers: Sequence[int], seed: int, root: Path, limits: Limits
) -> Iterator[Result]:
    """What became of each input of a kind. root: holds all folders of inputs, and what none may touch."""
    remaining = list(numbers)
    while remaining:
        batch = remaining[:TOGETHER]
        for result in _in_a_process(name, kind, batch, seed, root, limits):
            yield result
            remaining.remove(result.number)
            if result.outcome not in (SUCCESS, SENTENCE):
                place = _place(root, name, result.number)
                (place / "detail").write_text(result.detail, encoding="utf-8", errors="replace")


def _place(root: Path, name: str, number: int) -> Path:
    return root / "inputs" / f"{name}-{number}"


def _in_a_process(
    name: str, kind: Kind, numbers: Sequence[int], seed: int, root: Path, limits: Limits
) -> Iterator[Result]:
    """The results up to the input that ends the process, which is stopped after it."""
    reading, writing = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _work(name, kind, numbers, seed, root, limits, writing)
    os.close(writing)
    try:
        with os.fdopen(reading) as lines:
            for number in numbers:
                line = lines.readline() if _waited(lines.fileno(), child, limits.seconds) else None
                if not line:
                    yield Result(number, SLOW if line is None else TRACEBACK, _ended(child, line, limits))
                    return
                result = Result(**json.loads(line))
                if result.outcome == "broken":
                    raise RuntimeError(f"{name} {number} cannot be made: {result.detail}")
                yield result
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _ended(child: int, line: str | None, limits: Limits) -> str:
    if line is None:
        return f"more than {limits.seconds:g} s"
    status = os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    return f"the process ended by itself, {status.si_status if status else '?'}"


def _waited(file: int, child: int, seconds: float) -> bool:
    """Whether something can be read before the process has worked for so long, or slept for so long."""
    seen, began, slept = time.monotonic(), _progress(child)[1], 0.0
    while not select.select([file], [], [], 0.1)[0]:
        before, seen = seen, time.monotonic()
        state, worked = _progress(child)
        slept = slept + seen - before if state == "S" else 0.0  # not where it only waits for its turn
        if worked - began > seconds or slept > seconds:
            return False
    return True


def _progress(process: int) -> tuple[str, float]:
    """The state of a process, such as R and S, and the processor seconds that it has worked."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return fields[0], (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _work(
    name: str, kind: Kind, numbers: Sequence[int], seed: int, root: Path, limits: Limits, results: int
) -> None:
    """Try inputs in this process and write their results; never returns."""
    watch, parent = Watch(root), os.getppid()
    sys.dont_write_bytecode = True  # beside modules that are imported only now
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    sys.stdin = open(os.devnull)  # noqa: SIM115
    for number in numbers:
        if os.getppid() != parent:  # it was stopped
            break
        place = _place(root, name, number)
        result = _one(name, kind, number, seed, place, watch, limits)
        os.write(results, json.dumps(vars(result)).encode() + b"\n")
        if result.outcome in (SUCCESS, SENTENCE):
            shutil.rmtree(place, ignore_errors=True)
    os._exit(0)


def _one(name: str, kind: Kind, number: int, seed: int, place: Path, watch: Watch, limits: Limits) -> Result:
    shutil.rmtree(place, ignore_errors=True)
    here = place / "a" / "desk"  # so that what is beside a folder is its own, too
    for folder in (here, place / "home", place / "cache", place / "tmp"):
        folder.mkdir(parents=True)
    os.environ |= {"HOME": str(place / "home"), "CHIASM_CACHE": str(place / "cache")}
    tempfile.tempdir = str(place / "tmp")
    os.chdir(here)
    with _output(place / "output"):
        try:
            action = kind.make(random.Random(f"{seed} {name} {number}"), here)
        except BaseException:
            return Result(number, "broken", traceback.format_exc())
        began, held = time.process_time(), _limit_memory(limits.memory)
        try:
            with watch.watching(place):
                outcome, detail = ended(action)
        finally:
            resource.setrlimit(resource.RLIMIT_DATA, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        seconds, mib = time.process_time() - began, (_status("VmHWM") - held) / 2**20
    if watch.seen:
        outcome, detail = OUTSIDE, "; ".join(watch.seen)
    elif any(words in detail for words in NO_MEMORY) or mib > limits.memory / 2**20:
        outcome, detail = LARGE, detail or f"{mib:.0f} MiB"
    elif seconds > limits.seconds:
        outcome = SLOW
    return Result(number, outcome, detail, round(seconds, 3), round(mib, 1))


def ended(action: Action) -> tuple[str, str]:
    """Success, a sentence, or a traceback."""
    from chiasm.errors import ChiasmError

    try:
        action()
    except ChiasmError as error:
        text = str(error)
        if not 0 < len(text) <= LONGEST_SENTENCE or not _prints(text):
            return TRACEBACK, f"no sentence of {len(text):,} characters: {text[:200]!r}"
        return SENTENCE, text
    except BaseException:
        return TRACEBACK, traceback.format_exc()
    return SUCCESS, ""


def _prints(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@contextmanager
def _output(path: Path) -> Iterator[None]:
    """What is printed goes into a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    with path.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for stream, number in zip((1, 2), kept):
            os.dup2(number, stream)
            os.close(number)


def _limit_memory(most: int) -> int:
    """Let this process hold so many bytes more, and no more; what it has of the machine's memory now."""
    data = _status("VmData") + most
    resource.setrlimit(resource.RLIMIT_DATA, (data, resource.RLIM_INFINITY))
    Path("/proc/self/clear_refs").write_text("5")  # the highest mark of memory begins again
    return _status("VmRSS")


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise AssertionError(field)


class Watch:
    """Sees files that are written outside a folder, programs that are started, and other machines that are asked.

    An audit hook sees what Python does, and refuses it; what a library writes by itself is seen in the files that
    lie beside the folders of inputs.
    """

    def __init__(self, root: Path):
        self.root, self.place = root, root
        self.seen: list[str] = []
        self._on = False
        sys.addaudithook(self._audit)

    @contextmanager
    def watching(self, place: Path) -> Iterator[None]:
        self.seen, self.place = [], place.resolve()
        before = self._beside()
        self._on = True
        try:
            yield
        finally:
            self._on = False
        after = self._beside()
        self.seen += [
            f"changed {path}" for path in {**before, **after} if before.get(path) != after.get(path)
        ]

    def _beside(self) -> dict[str, tuple[int, int]]:
        """Size and time of every file beside the folders of inputs."""
        states = {}
        for folder, folders, files in os.walk(self.root):
            if folder == str(self.root):
                folders.remove("inputs")
            for name in files:
                state = os.lstat(path := os.path.join(folder, name))
                states[path] = (state.st_size, state.st_mtime_ns)
        return states

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._on:
            return
        self._on = False  # what follows here is no input's doing
        try:
            problem = self._problem(event, arguments)
        finally:
            self._on = True
        if problem:
            self.seen.append(f"{event} {problem}"[:300])
            raise PermissionError(f"an input of the fuzz reaches outside: {event} {problem}"[:300])

    def _problem(self, event: str, arguments: tuple[Any, ...]) -> str | None:
        if event == "open":
            path, _, flags = arguments
            return self._outside(path) if isinstance(flags, int) and flags & WRITING else None
        if event in PATHS:
            return next(filter(None, (self._outside(arguments[i]) for i in PATHS[event])), None)
        if event in ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "pty.spawn"):
            return str(arguments)
        if event == "subprocess.Popen":
            return None if Path(os.fsdecode(arguments[0])).name in PROGRAMS else str(arguments[:2])
        if event == "socket.connect" and isinstance(arguments[1], tuple):
            return None if arguments[1][0] in ("127.0.0.1", "::1", "localhost") else str(arguments[1])
        return None

    def _outside(self, path: object) -> str | None:
        if not isinstance(path, str | bytes | os.PathLike):
            return None  # of a file that is open already
        real = os.path.realpath(os.fsdecode(path))
        mine = real == str(self.place) or real.startswith(f"{self.place}{os.sep}")
        return None if mine or real.startswith(("/dev/null", "/proc/self/")) else real


# Which arguments of an audit event are paths that are changed.
PATHS = {
    "os.mkdir": (0,), "os.rename": (0, 1), "os.remove": (0,), "os.rmdir": (0,), "os.link": (1,), "os.symlink": (1,),
    "os.truncate": (0,), "os.chmod": (0,), "os.chown": (0,), "os.utime": (0,), "shutil.rmtree": (0,),
    "shutil.move": (0, 1), "shutil.copyfile": (1,), "os.setxattr": (0,), "os.mkfifo": (0,),
}  # fmt: skip
