"""Trains the toy recipe in a child that is left alone, and in children killed after random numbers of steps.

Run as `killing.py FOLDER KILLS SEED`: `FOLDER/alone` and `FOLDER/killed` hold the two runs, of which each has a
cache of its own. Prints how many children were killed. Forking saves the imports, of which building a model once
does the last.
"""

import os
import random
import signal
import sys
import time
from importlib import import_module
from pathlib import Path

import torch
from toy import toy

from chiasm.training import train
from chiasm.training.train import build_model

STEPS = {"codes": 30, "learn": 80}  # ten kills reach into the second stage
RECIPE = (*(f"stages.{name}.steps={steps}" for name, steps in STEPS.items()), "checkpoints.every=4")


def child(folder: str) -> int:
    pid = os.fork()
    if pid == 0:
        os.environ["CHIASM_CACHE"] = f"{folder}.cache"
        os.dup2(os.open(f"{folder}.log", os.O_CREAT | os.O_WRONLY | os.O_APPEND), 1)
        try:
            train(toy(*RECIPE), folder)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    return pid


def steps(folder: str) -> int:
    """How many are written down."""
    try:
        return Path(folder, "metrics.jsonl").read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


def finish(folder: str) -> None:
    """Train until the run comes to its end; a failure is this process's own."""
    _, status = os.waitpid(child(folder), 0)
    if code := os.waitstatus_to_exitcode(status):
        sys.exit(code)


def kill(folder: str, kills: int, seed: int) -> int:
    """Begin the run and kill it, so many times or until it is at its end; how often it was killed."""
    dice, killed = random.Random(seed), 0
    while killed < kills:
        more = dice.choice([0, 0, 0, *range(1, 12)])
        last = steps(folder) + more
        pid = child(folder)
        while steps(folder) < last and not os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            time.sleep(0.001)
        time.sleep(
            dice.uniform(0, 0.02 if more else 0.4)
        )  # amid whatever it does then; without steps, it begins
        os.kill(pid, signal.SIGKILL)
        if os.WIFSIGNALED(os.waitpid(pid, 0)[1]):
            killed += 1
        else:
            break
    return killed


if __name__ == "__main__":
    torch.set_num_threads(1)
    import_module("torch.utils.tensorboard")
    build_model(toy(*RECIPE))
    alone, killed = (str(Path(sys.argv[1], name)) for name in ("alone", "killed"))
    finish(alone)
    print(kill(killed, int(sys.argv[2]), int(sys.argv[3])), flush=True)
    finish(killed)
