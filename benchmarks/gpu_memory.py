"""Peak GPU memory and speed of the Gemma-4-E2B recipe for a card of 4 GB, with random weights.

python benchmarks/gpu_memory.py --out docs/results/memory-gemma4-e2b      # on a CUDA machine
python benchmarks/gpu_memory.py --predict                                 # counted, anywhere
python benchmarks/gpu_memory.py --toy                                     # a dry run, anywhere

The shape comes from the configuration alone: nothing is downloaded. The model is written once
(9.3 GB) and loaded the way every subject is. The allocator is capped at `--cap` GiB.
"""

from __future__ import annotations

import argparse
import gc
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import AutoModelForCausalLM, Gemma4TextConfig, PreTrainedTokenizerFast

from nlakit.config.load import load_config
from nlakit.config.sections import RunConfig
from nlakit.core.contract import Contract
from nlakit.core.metrics import mean_unit
from nlakit.data import tables
from nlakit.files.rows import TableRows
from nlakit.models.reconstructor import Reconstructor
from nlakit.models.subject import Subject, load_subject
from nlakit.run.peak import peak_memory
from nlakit.studies.planning.stage_memory import Budget, Budgets, Lengths, model_of
from nlakit.train import ar, av
from nlakit.train.loop import Trainer

RECIPE = Path(__file__).parents[1] / "examples" / "gemma4-e2b-4gb.yaml"
STEPS = 3  # of 16 micro-batches; the optimizer's states exist from the second on
ROWS = 32
FULL: dict[str, Any] = {
    "vocab_size": 262144,
    "vocab_size_per_layer_input": 262144,
    "hidden_size": 1536,
    "intermediate_size": 6144,
    "num_hidden_layers": 35,
    "num_attention_heads": 8,
    "num_key_value_heads": 1,
    "head_dim": 256,
    "global_head_dim": 512,
    "num_kv_shared_layers": 20,
    "hidden_size_per_layer_input": 256,
}
TOY: dict[str, Any] = FULL | {
    "vocab_size": 2048,
    "vocab_size_per_layer_input": 2048,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 10,
    "head_dim": 32,
    "global_head_dim": 64,
    "num_kv_shared_layers": 4,
    "hidden_size_per_layer_input": 32,
}
TOY_SETTINGS = (
    "subject.layer=6",
    "subject.device=cpu",
    "ar.blocks=7",
    "ar.max_tokens=96",
    "av.max_tokens=96",
    "ar.accumulation=2",
    "av.accumulation=2",
    "ar.lora.r=8",
    "av.lora.r=8",
    "decoding.max_new_tokens=8",
)
SHORT = ("ar.phases=[{steps: %d, lr: 1e-4}]", "av.phases=[{steps: %d, lr: 1e-4}]")


def shape_config(toy: bool) -> Gemma4TextConfig:
    """Full attention in every fifth block; the blocks that share keys have an MLP twice as wide."""
    sizes = TOY if toy else FULL
    kinds = [
        "full_attention" if index % 5 == 4 else "sliding_attention"
        for index in range(sizes["num_hidden_layers"])
    ]
    return Gemma4TextConfig(
        **sizes,
        layer_types=kinds,
        sliding_window=512,
        use_double_wide_mlp=True,
        final_logit_softcapping=30.0,
    )


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """A token a byte, and one rare token for the marker."""
    names = ["<pad>", "<eos>", "<bos>", "<unk>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    vocabulary = {name: index for index, name in enumerate(names)}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_tokens(["㊗"])
    made.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", vocabulary["<bos>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>"
    )


def write_model(folder: Path, toy: bool) -> None:
    """A checkpoint with random weights, made in main memory."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(shape_config(toy), dtype=torch.bfloat16)
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)


def predict(config: RunConfig, toy: bool) -> dict[str, Budget]:
    """The four budgets as counted, at the longest texts the settings allow."""
    with torch.device("meta"):
        model = model_of(AutoModelForCausalLM.from_config(shape_config(toy), dtype=torch.bfloat16))
    longest = min(config.ar.max_tokens, config.av.max_tokens)
    prompt = 11  # of the default template under Gemma's tokenizer
    made = Budgets(config, model, Lengths(longest, longest, prompt, longest - prompt))

    def most(budgets: list[Budget]) -> Budget:
        return max(budgets, key=lambda budget: budget.total)

    return {
        "AR training": most(made.training_ar(config.ar)),
        "AV training": most(made.training_av()),
        "generation": most(made.writing(config.eval.generate_batch)),
        "evaluation": most(made.evaluating()),
    }


class Bench:
    """A loaded subject with made-up rows of the longest texts."""

    def __init__(self, config: RunConfig, folder: Path) -> None:
        self.config, self.folder = config, folder
        self.subject: Subject = load_subject(config.subject)
        rng = np.random.default_rng(0)
        width = self.subject.d_model
        vectors = (rng.standard_normal((ROWS, width)) + 0.5).astype(np.float32)
        letters = rng.integers(97, 123, (ROWS, config.ar.max_tokens)).astype(np.uint8)
        texts = [row.tobytes().decode() for row in letters]
        names = [str(row) for row in range(ROWS)]
        self.rows = TableRows(
            names, names, texts, texts, names, names, list(range(ROWS)), vectors
        )  # fmt: skip
        self.mean = mean_unit(vectors)
        norms = tables.measured_norms(vectors, self.subject)
        self.contract: Contract = tables.base_contract(
            config, self.subject, self.mean, vectors, norms
        )

    def reconstructor(self) -> Reconstructor:
        contract = ar.prepared_contract(self.contract, self.config)
        return Reconstructor(self.subject, contract, self.config.ar.lora, self.config.seed)

    def train_ar(self) -> tuple[int, float]:
        module, settings = self.reconstructor(), self.config.ar
        ar.enable_checkpointing(module.decoder)
        held_out = self.rows.head(settings.measure_rows)
        task = ar.ARTask(
            module, self.rows.texts, self.rows.vectors, held_out, self.mean, settings
        )  # fmt: skip
        return self.train(task, sum(task.lengths()))

    def train_av(self) -> tuple[int, float]:
        module = av.build(self.config, self.contract, self.subject, self.mean)
        task = av.AVTask(module, self.rows, self.rows, self.config.av)
        return self.train(task, sum(task.lengths()) + ROWS * len(module.prompt))

    def train(self, task: Any, tokens: int) -> tuple[int, float]:
        """Tokens and seconds of the steps; the measure at the end is run and not timed."""
        measure, apart = task.measure, [0.0]

        def timed() -> dict[str, float]:
            started = time.perf_counter()
            found = measure()
            apart[0] = time.perf_counter() - started
            return found

        task.measure = timed
        settings = task.config
        with tempfile.TemporaryDirectory(dir=self.folder) as scratch:
            trainer = Trainer(task, settings, Path(scratch), self.config.seed)
            started = time.perf_counter()
            trainer.run("steps")
            seconds = time.perf_counter() - started - apart[0]
        rows = settings.steps * settings.accumulation * settings.batch_rows
        return tokens * rows // ROWS, seconds

    def generate(self) -> tuple[int, float]:
        module, size = self.verbalizer(), self.config.eval.generate_batch
        started = time.perf_counter()
        module.explain(self.rows.vectors[:size], batch=size, decoding=module.decoding())
        return size * self.config.decoding.max_new_tokens, time.perf_counter() - started

    def verbalizer(self) -> Any:
        """An AV that is used: the limits of the run's texts, no checkpointing."""
        contract = av.prepared_contract(self.contract, self.config)
        contract.nlakit.max_new_tokens = self.config.decoding.max_new_tokens
        module = av.Verbalizer(
            self.subject, contract, self.mean, self.config.av.lora, self.config.seed
        )
        return module.eval()

    def evaluate(self) -> tuple[int, float]:
        """Texts, losses of labels, then the AR beside the AV, as the evaluation does."""
        module, size = self.verbalizer(), self.config.eval.generate_batch
        started = time.perf_counter()
        module.explain(self.rows.vectors[:size], batch=size)
        limit = self.config.av.max_tokens
        module.label_loss(module.scaled(self.rows.vectors), self.rows.texts, max_tokens=limit)
        reader = self.reconstructor().eval()
        reader.reconstruct(self.rows.texts, max_tokens=self.config.ar.max_tokens)
        return ROWS * (self.config.ar.max_tokens + limit), time.perf_counter() - started


def measure(name: str, work: Callable[[], tuple[int, float]]) -> dict[str, Any]:
    """Peaks and speed of one kind of work; running out of the cap is a result too."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    failed, done = None, (0, 1.0)
    with peak_memory() as peak:
        try:
            done = work()
        except torch.cuda.OutOfMemoryError as error:
            failed = str(error).splitlines()[0]
    return {"work": name, **peak, "tokens_per_s": round(done[0] / done[1], 1), "failed": failed}


def lines_predicted(budgets: dict[str, Budget], config: RunConfig) -> list[str]:
    """Markdown: a column a kind of work, a row a part."""
    held = (part for b in budgets.values() for part, size in b.parts.items() if size)
    names = list(dict.fromkeys(held))
    head = f"| GiB, **predicted, not measured** | {' | '.join(budgets)} |"
    lines = [head, "|---|" + "---|" * len(budgets)]
    for part in names:
        cells = [f"{b.parts.get(part, 0) / 2**30:.3f}" for b in budgets.values()]
        lines.append(f"| {part} | {' | '.join(cells)} |")
    totals = [f"**{b.total / 2**30:.2f}**" for b in budgets.values()]
    moments = [b.doing for b in budgets.values()]
    lines += [f"| total | {' | '.join(totals)} |", f"| at its peak when | {' | '.join(moments)} |"]
    return [
        *lines,
        "",
        "Tensors alone: the allocator's rounding and the device's context come on top.",
        f"Longest texts: {config.ar.max_tokens} tokens.",
    ]


def lines_measured(found: list[dict[str, Any]], cap: float) -> list[str]:
    lines = [
        f"Allocator capped at {cap} GiB on {torch.cuda.get_device_name()},"
        f" torch {torch.__version__}.",
        "",
        "| work | allocated GiB | reserved GiB | tokens/s | |",
        "|---|---|---|---|---|",
    ]
    for one in found:
        sizes = [f"{one.get(kind, 0) / 2**30:.2f}" for kind in ("allocated", "reserved")]
        end = one["failed"] or ""
        lines.append(f"| {one['work']} | {' | '.join(sizes)} | {one['tokens_per_s']} | {end} |")
    return lines


def run(config: RunConfig, given: argparse.Namespace) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory(dir=given.scratch) as scratch:
        folder = given.model or Path(scratch) / "model"
        if not (folder / "config.json").exists():
            write_model(folder, given.toy)
        subject = config.subject.model_copy(update={"model": str(folder)})
        if torch.cuda.is_available():
            whole = torch.cuda.get_device_properties(0).total_memory
            torch.cuda.set_per_process_memory_fraction(given.cap * 2**30 / whole)
        bench = Bench(config.model_copy(update={"subject": subject}), Path(scratch))
        return [
            measure("AR training", bench.train_ar),
            measure("AV training", bench.train_av),
            measure("generation", bench.generate),
            measure("evaluation", bench.evaluate),
        ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--predict", action="store_true", help="count only, load nothing")
    parser.add_argument("--toy", action="store_true", help="small shape on the CPU, no record")
    parser.add_argument("--cap", type=float, default=3.5, help="GiB the allocator may take")
    parser.add_argument("--model", type=Path, help="keep or reuse the random model here")
    parser.add_argument("--scratch", type=Path, help="where temporary files lie")
    parser.add_argument("--out", type=Path, help="write OUT.json and OUT.md")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=C", dest="sets")
    given = parser.parse_args()
    short = [setting % STEPS for setting in SHORT]
    toy = list(TOY_SETTINGS) if given.toy else []
    # What is counted is the card's precision, whatever this machine would take by itself.
    card = ["subject.dtype=bfloat16"] if given.predict else []
    config = load_config(RECIPE, [*short, *toy, *card, *given.sets])
    budgets = predict(config, given.toy)
    lines, found = lines_predicted(budgets, config), []
    if not given.predict:
        if not given.toy and not torch.cuda.is_available():
            parser.error("no CUDA device: use --predict or --toy")
        found = run(config, given)
        lines = [*lines_measured(found, given.cap), "", *lines] if not given.toy else lines
    print("\n".join(lines))
    for one in found:
        print(json.dumps(one))
    if given.out and not given.toy:
        counted = {name: dict(budget.parts) for name, budget in budgets.items()}
        record = {"predicted": counted, "measured": found, "cap_gib": given.cap}
        given.out.with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf-8")
        text = json.dumps(record, indent=1) + "\n"
        given.out.with_suffix(".json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
