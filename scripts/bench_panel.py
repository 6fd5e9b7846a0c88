"""GrowthLab in a kernel of its own: how soon a click shows something, what a boot sends."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

from bench_rows import Row, row
from jupyter_client.manager import start_new_kernel

#: Makes a panel ready to boot, as a learner does.
_READY = """
from cloudlab.widgets import GrowthLab
lab = GrowthLab()
lab.predict("fills", "fills")
lab
"""

#: What a line of the guest's kernel or systemd begins with.
_KERNEL_LINE = re.compile(r"\[ *\d+\.\d{6}\]")

_PATIENCE_S = 600.0


def bench_panel(folder: Path) -> Iterator[Row]:
    """From the click on Boot to the first console line, and widget traffic, played and live."""
    for mode in ("replay", "live"):
        first_s, sent_bytes, took_s = [], [], []
        # The first live boot may have to save the machine that the others start from.
        for _ in range(1 if mode == "replay" else 2):
            first, sent, took = _boot(folder, mode)
            first_s.append(first)
            sent_bytes.append(sent)
            took_s.append(took)
        yield row("panel", f"{mode}: click to first console line", "s", first_s[-1:])
        yield row("panel", f"{mode}: widget traffic of a boot", "KiB", [sent_bytes[-1] / 1024])
        yield row("panel", f"{mode}: click to result", "s", took_s[-1:])


def _boot(folder: Path, mode: str) -> tuple[float, int, float]:
    env = {**os.environ, "CLOUDLAB_MODE": mode}
    manager, client = start_new_kernel(kernel_name="python3", env=env, cwd=str(folder))
    try:
        client.execute_interactive(_READY, timeout=_PATIENCE_S, output_hook=lambda _: None)
        started = time.perf_counter()
        client.execute("lab.boot()")
        first_s, sent_bytes = 0.0, 0
        while time.perf_counter() - started < _PATIENCE_S:
            message = client.get_iopub_msg(timeout=_PATIENCE_S)
            if message["msg_type"] != "comm_msg":
                continue
            text = json.dumps(message["content"])
            sent_bytes += len(text) + sum(len(buffer) for buffer in message["buffers"])
            if not first_s and _KERNEL_LINE.search(text):
                first_s = time.perf_counter() - started
            if "<b>Done</b>" in text:
                break
        return first_s, sent_bytes, time.perf_counter() - started
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
