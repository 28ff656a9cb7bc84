"""What a training takes, and joint RL: tokens, operations, seconds, and bytes on disk."""

from __future__ import annotations

import math
from dataclasses import dataclass

from nlakit.config.sections import RLConfig, RunConfig, TrainConfig
from nlakit.core import flops
from nlakit.core.batches import labels_beside
from nlakit.core.memory import tensors_trained
from nlakit.studies.planning.calibrate import Calibration
from nlakit.train.loop import KEEP_CHECKPOINTS

STATE_BYTES = 12  # a trained weight in a checkpoint: its master and two moments, float32
MEASURED_READS = 5  # of each text by RL's instruments: plain, changed twice, another's, frozen AR


def measures(settings: TrainConfig) -> int:
    return math.ceil(settings.steps / settings.measure_every)


def stored_bytes(settings: TrainConfig, weights: float, head: float) -> float:
    """Adapter in bfloat16, head in bfloat16, and the checkpoints that stay."""
    kept = min(KEEP_CHECKPOINTS, (settings.steps - 1) // settings.checkpoint_every)
    return 2.0 * (weights + head) + STATE_BYTES * (weights + head) * kept


def ar_training(
    config: RunConfig, settings: TrainConfig, measured: Calibration, held_out: int
) -> tuple[float, float, float]:
    """Tokens, FLOP and stored bytes of training the AR."""
    shape, sizes, rank = measured.shape, measured.sizes, config.ar.rank
    depth = config.ar.blocks or config.subject.layer + 1
    texts = settings.steps * settings.accumulation * settings.batch_rows
    cost = texts * flops.lora_step(shape, depth, [sizes.ar_text], rank)
    measure = [2 * sizes.ar_text + sizes.ar_empty]
    cost += measures(settings) * held_out * flops.forward(shape, depth, measure, rank)
    trained = tensors_trained(measured.model, rank, depth, ar=True)
    stored = stored_bytes(settings, sum(trained), shape.d_model**2)
    return texts * sizes.ar_text, cost, stored


def label_loss(config: RunConfig, measured: Calibration, rows: float) -> float:
    """Forward of the AV over `rows` labels."""
    sizes, shape = measured.sizes, measured.shape
    lengths = [sizes.av_prompt + sizes.response]
    one = flops.forward(shape, shape.blocks, lengths, config.av.rank)
    return rows * (one + flops.head(shape, sizes.response))


def decoding(config: RunConfig, measured: Calibration, rows: float) -> tuple[float, float, float]:
    """Tokens and FLOP of texts as long as labels; seconds of texts as long as the longest.

    A batch ends with its longest text, and a small rest of a batch is hardly faster than a full
    one.
    """
    sizes, limit, rank = measured.sizes, config.decoding.max_new_tokens, config.av.rank

    def cost(new: float) -> float:
        return flops.decoding(measured.shape, rows, sizes.av_prompt, min(new, limit), rank)

    seconds = cost(sizes.long_response) / measured.speeds["decode"]
    return rows * min(sizes.response, limit), cost(sizes.response), seconds


@dataclass(frozen=True)
class Joint:
    """What joint RL takes besides the adaptation of the AR."""

    tokens: float
    flops: float
    seconds: float
    disk: float


def joint_rl(
    config: RunConfig, settings: RLConfig, measured: Calibration, rl_rows: int, ar_rows: int
) -> Joint:
    """Steps and measurements of joint RL. Not counted: the subject's reading for
    `reward.functional`, and what merging adapters takes.

    Drawn texts are as long as labels, in the seconds as long as the longest of them.
    """
    shape, sizes, speeds = measured.shape, measured.sizes, measured.speeds
    held_out = min(settings.measure_rows, rl_rows // 2)
    measurements = measures(settings) + 1  # one before the first step
    limit = settings.max_new_tokens or config.decoding.max_new_tokens
    texts, rank = settings.batch_rows * settings.samples, config.av.rank
    drawing = 0 if settings.merge_adapters else rank

    def writing(new: float) -> float:
        new, prompt = min(new, limit), sizes.av_prompt
        step = flops.decoding(shape, texts, prompt, new, drawing, each=settings.samples)
        greedy = flops.decoding(shape, held_out, prompt, new, rank)
        return settings.steps * step + measurements * greedy

    learnt, policy = _policy(config, settings, measured, min(sizes.response, limit))
    read, reading = _reading(config, settings, measured, ar_rows)
    depth = config.ar.blocks or config.subject.layer + 1
    seen = [*[sizes.ar_text] * MEASURED_READS * held_out, sizes.ar_empty]
    judging = measurements * flops.forward(shape, depth, seen, config.ar.rank)
    made = min(sizes.response, limit) * (settings.steps * texts + measurements * held_out)
    reading = settings.steps * reading + judging
    total = writing(sizes.response) + settings.steps * policy + reading
    seconds = writing(sizes.long_response) / speeds["decode"]
    seconds += settings.steps * policy / speeds["av"] + reading / speeds["ar"]
    disk = _joint_disk(config, settings, measured)
    return Joint(made + settings.steps * (learnt + read), total, seconds, disk)


def _policy(
    config: RunConfig, settings: RLConfig, measured: Calibration, response: float
) -> tuple[float, float]:
    """Tokens and FLOP of one update of the AV, the frozen AV's forward beside it, and labels."""
    shape, rank, rows = measured.shape, config.av.rank, settings.batch_rows
    each = 1 if settings.method == "best_of_n" else settings.learn_on or settings.samples

    def learning(new: float) -> float:
        one = flops.lora_step(shape, shape.blocks, [measured.sizes.av_prompt + new], rank)
        return one + flops.head(shape, new, backward=True)

    length = measured.sizes.av_prompt + response
    beside = flops.forward(shape, shape.blocks, [length], rank) + flops.head(shape, response)
    labels = rows * learning(measured.sizes.response) if settings.label_weight else 0.0
    return rows * each * length, rows * each * (learning(response) + beside) + labels


def _reading(
    config: RunConfig, settings: RLConfig, measured: Calibration, ar_rows: int
) -> tuple[float, float]:
    """Tokens that the AR learns on in a step, and FLOP of that and of the readings that pay."""
    shape, rank, length = measured.shape, config.ar.rank, measured.sizes.ar_text
    depth = config.ar.blocks or config.subject.layer + 1
    reward, rows = settings.reward, settings.batch_rows
    paying = (reward.frozen_share < 1) + (reward.frozen_share > 0)
    paying += bool(reward.shuffle) + bool(reward.functional)
    gold = min(labels_beside(rows, settings.gold_share), ar_rows)
    learnt = settings.ar_samples * (rows + gold)
    cost = rows * settings.samples * paying * flops.forward(shape, depth, [length], rank)
    return learnt * length, cost + learnt * flops.lora_step(shape, depth, [length], rank)


def _joint_disk(config: RunConfig, settings: RLConfig, measured: Calibration) -> float:
    """The pair and the best by either rule, the last one where that is kept, and checkpoints."""
    model, blocks = measured.model, len(measured.model.blocks)
    depth = config.ar.blocks or config.subject.layer + 1
    trained = sum(tensors_trained(model, config.av.rank, blocks, ar=False))
    trained += sum(tensors_trained(model, config.ar.rank, depth, ar=True)) + model.d_model**2
    pairs = 4 if settings.keep == "last" else 3
    return 2.0 * trained * (pairs - 1) + stored_bytes(settings, trained, 0)
