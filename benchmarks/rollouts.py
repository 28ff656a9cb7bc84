"""A step of joint RL in its parts beside this machine's matmul speed, and its rollouts beside a
plain loop over `generate()`, in one process.

    python benchmarks/rollouts.py [--vectors 16] [--samples 8] [--pairs 3] [--json OUT]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import numpy as np
import torch
from speed import Closed
from transformers import StoppingCriteriaList

from nlakit.config.sections import RLConfig
from nlakit.core import flops
from nlakit.core.contract import read_contract
from nlakit.files.rows import read_mean, rows_of_file
from nlakit.models.loading import subject_of
from nlakit.models.subject import Subject, load_subject
from nlakit.run.folder import git_commit, library_versions
from nlakit.studies.planning.calibrate import matmul_speed, shape_of
from nlakit.train.rl.instruments import Instruments
from nlakit.train.rl.joint import JointLoop
from nlakit.train.rl.learn import load_halves
from nlakit.train.rl.objective import advantages
from nlakit.train.rl.rollout import Rollouts, roll_out

BOX = Path(__file__).parents[1] / "src/nlakit/box"


def plain_loop(loop: JointLoop, injected: torch.Tensor) -> int:
    """The texts of each vector by `generate()`, a vector at a time; returns their tokens.

    Its prefill gets a contiguous slice before the head (see benchmarks/speed.py): as installed it
    takes minutes on a CPU.
    """
    av, count = loop.halves.av, 0
    head = av.model.get_output_embeddings()
    hook = head.register_forward_pre_hook(lambda module, args: (args[0].contiguous(),))
    ids = torch.tensor([av.prompt] * loop.settings.samples, device=av.device)
    try:
        for vector in injected:
            with torch.no_grad(), av.injecting(vector.expand(len(ids), -1)):
                made = av.model.generate(
                    input_ids=ids,
                    attention_mask=torch.ones_like(ids),
                    max_new_tokens=loop.decoding.max_new_tokens,
                    do_sample=True,
                    temperature=1.0,
                    top_k=0,
                    top_p=1.0,
                    pad_token_id=av.tokenizer.pad_token_id or 0,
                    stopping_criteria=StoppingCriteriaList([Closed(av.close, ids.shape[1])]),
                )
            count += sum(written(row, av.close) for row in made[:, ids.shape[1] :].tolist())
    finally:
        hook.remove()
    return count


def written(row: list[int], close: list[int]) -> int:
    """Tokens of a row to the end of its closing tag."""
    size = len(close)
    ends = (at + size for at in range(len(row)) if row[at : at + size] == close)
    return next(ends, len(row))


def build(subject: Subject, pair: Path, rows: Path, vectors: int, samples: int) -> JointLoop:
    """The loop over held-out rows: nothing is learnt here that is kept."""
    table, mean = rows_of_file(rows), read_mean(pair / "ar")
    halves = load_halves(subject, pair)
    given = {"batch_rows": vectors, "samples": samples, "measure_every": 2**30}
    config = RLConfig.model_validate(given)
    few = Instruments(halves.av, halves.ar, halves.start_ar, table.head(2), mean, 2, 0)
    return JointLoop(halves, table, table, few, config, Path(tempfile.mkdtemp()), seed=0)


def counted(loop: JointLoop, subject: Subject, drawn: Rollouts) -> dict[str, float]:
    """Useful FLOPs of the parts of a step."""
    shape, av, ar = shape_of(subject.model), loop.halves.av, loop.halves.ar
    config, prompt = loop.settings, len(av.prompt)
    rank = next(iter(av.model.peft_config.values())).r
    lengths = [prompt + float(n) for n in drawn.lengths]
    tokens, texts = float(drawn.lengths.sum()), len(drawn)
    read = [float(len(ar.encode(text, config.max_tokens))) for text in drawn.texts]
    learnt = lengths[: texts * (config.learn_on or config.samples) // config.samples]
    share = len(learnt) / texts
    update = flops.lora_step(shape, shape.blocks, learnt, rank)
    update += flops.head(shape, tokens * share, backward=True)
    frozen = flops.forward(shape, shape.blocks, learnt, rank) + flops.head(shape, tokens * share)
    blocks = ar.contract.ar_blocks
    moved = read[:: config.samples // config.ar_samples]
    gold = 1 / (1 - config.gold_share)
    return {
        "rollouts": flops.decoding(shape, texts, prompt, tokens / texts),
        "reward, two ARs": 2 * flops.forward(shape, blocks, read, rank),
        "AV update, with its start": update + frozen,
        "AR update": flops.lora_step(shape, blocks, moved, rank) * gold,
    }


def run(pair: Path, rows: Path, vectors: int, samples: int, pairs: int) -> dict[str, Any]:
    contract = read_contract(pair / "av")
    precision = contract.nlakit.subject_precision
    subject = load_subject(subject_of(contract, precision, None, None, "auto"))
    loop = build(subject, pair, rows, vectors, samples)
    some = loop.rows.vectors[:vectors]
    injected, sources = loop.halves.av.scaled(some), loop.rows.sources[:vectors]
    speed = matmul_speed(subject.device, torch.bfloat16, repeats=10)
    drawn = draw(loop, injected)
    parts = loop.rewarder.parts(drawn, some, sources, [0])
    rewards = np.sum(list(parts.values()), axis=0).reshape(-1, samples)
    advantage = advantages(rewards, "group", loop.settings.learn_on).reshape(-1)
    labels = [""] * vectors
    work: dict[str, Callable[[], Any]] = {
        "rollouts": lambda: draw(loop, injected),
        "reward, two ARs": lambda: loop.rewarder.parts(drawn, some, sources, [0]),
        "AV update, with its start": lambda: loop._move_av(injected, drawn, advantage, labels, 0.0),
        "AR update": lambda: loop._move_ar(some, drawn, 0, 0.0),
    }
    done = counted(loop, subject, drawn)
    found = {}
    for name, one in work.items():
        seconds = statistics.median(timed(one) for _ in range(pairs))
        found[name] = {
            "gflop": done[name] / 1e9,
            "seconds": seconds,
            "of_matmul": done[name] / seconds / speed,
        }
    return {
        "vectors": vectors,
        "samples": samples,
        "tokens_a_text": float(drawn.lengths.mean()),
        "matmul_gflops": speed / 1e9,
        "parts": found,
        "step_seconds": sum(one["seconds"] for one in found.values()),
        "against_generate": compared(loop, injected, pairs),
        "threads": torch.get_num_threads(),
        "commit": git_commit(),
        "versions": library_versions(),
    }


def draw(loop: JointLoop, injected: torch.Tensor, seed: int = 0) -> Rollouts:
    config = loop.settings
    return roll_out(
        loop.halves.av, injected, config.samples, loop.decoding, [seed], config.texts_at_once
    )


def compared(loop: JointLoop, injected: torch.Tensor, pairs: int) -> dict[str, Any]:
    """Tokens a second of both ways, in alternating order."""
    rates: dict[str, list[float]] = {"nlakit": [], "generate": []}
    for nth in range(pairs):
        for name in sorted(rates, reverse=nth % 2 == 0):
            began = time.perf_counter()
            if name == "nlakit":
                count = float(draw(loop, injected, nth).lengths.sum())
            else:
                count = float(plain_loop(loop, injected))
            rates[name].append(count / (time.perf_counter() - began))
    ratios = [own / other for own, other in zip(rates["nlakit"], rates["generate"], strict=True)]
    return {"tokens_a_second": rates, "ratio": statistics.median(ratios), "ratios": ratios}


def timed(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pair", type=Path, default=BOX)
    parser.add_argument("--rows", type=Path, default=BOX / "rows/test.parquet")
    parser.add_argument("--vectors", type=int, default=16)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    found = run(given.pair, given.rows, given.vectors, given.samples, given.pairs)
    for name, one in found["parts"].items():
        print(
            f"{name:26} {one['gflop']:8.0f} GFLOP {one['seconds']:6.2f} s "
            f"{one['of_matmul']:5.0%} of matmul"
        )
    against = found["against_generate"]
    print(
        f"a step of {given.vectors} vectors x {given.samples}: {found['step_seconds']:.1f} s; "
        f"rollouts {against['ratio']:.2f} x a plain loop over generate() "
        f"({min(against['ratios']):.2f} to {max(against['ratios']):.2f})"
    )
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
