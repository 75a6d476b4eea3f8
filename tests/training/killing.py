"""Trains the toy recipe in children that are killed after random numbers of steps, until one comes to its end.

Run as `killing.py FOLDER KILLS SEED`; prints how many children were killed. Forking saves the imports.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
from toy import toy

from chiasm.training import train

RECIPE = ("stages.codes.steps=120", "stages.learn.steps=150", "checkpoints.every=4")


def child(folder: str) -> int:
    pid = os.fork()
    if pid == 0:
        torch.set_num_threads(1)
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


def main(folder: str, kills: int, seed: int) -> None:
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
    _, status = os.waitpid(child(folder), 0)
    print(killed)
    sys.exit(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
