"""Settings of joint RL."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from nlakit.config.base import Count, Measure, Positive, Section, Share, Temperature, Weight


class RewardConfig(Section):
    """What a text is worth. Each part is logged by itself."""

    kind: Literal["mse", "log_mse", "centred"] = Field(
        default="mse",
        description="of a reconstruction: minus the squared distance of unit vectors, minus its "
        "logarithm, or the centred cosine",
    )
    frozen_share: Share = Field(
        default=0.5,
        description="share of the reconstruction's reward that the AR gives as it was before RL: "
        "a code that only the live AR can read is worth half",
    )
    prefix_share: Share = Field(
        default=0.0, description="share of the texts of which the AR sees a random beginning"
    )
    shuffle: Weight = Field(
        default=0.0, description="weight of the same reward with the sentences in another order"
    )
    functional: Weight = Field(
        default=0.0,
        description="weight of minus the KL in nats of the subject's next token, with the "
        "reconstruction put back in place of the activation",
    )
    length: Weight = Field(
        default=0.0,
        description="lost by a text at the limit; above `free_tokens` each token counts",
    )
    free_tokens: Count = Field(default=0, description="tokens that cost nothing")
    entropy: Weight = Field(
        default=0.0, description="weight of the mean -log p of a text's tokens: it pays for chance"
    )


class BrakesConfig(Section):
    """When RL is stopped. Shares are of what was measured before the first step."""

    unique: Share = Field(default=0.7, description="greedy texts that differ, below this share")
    entropy_low: Share = Field(default=0.25, description="entropy a token, below this share")
    entropy_high: Measure = Field(default=1.6, description="entropy a token, above this multiple")
    truncated: Share = Field(
        default=0.4, description="share of drawn texts that fail or reach the limit, above"
    )
    fall: Share = Field(
        default=0.15,
        description="a content measure below its start by this share of it, with an interval "
        "for all measurements together below 0, over 8 documents or more",
    )


class RLSettings(Section):
    """What the update does; the rest is as in every training."""

    method: Literal["grpo", "best_of_n"] = Field(
        default="grpo",
        description="grpo: every text counts by its advantage; best_of_n: the best text of each "
        "vector becomes its label",
    )
    samples: int = Field(default=8, ge=2, le=1024, description="G or n, texts drawn of each vector")
    learn_on: int | None = Field(
        default=None,
        ge=2,
        le=1024,
        description="texts of a vector that the AV learns on, half of them its best and half its "
        "worst; all unless given",
    )
    temperature: Temperature = 1.0
    max_new_tokens: Positive | None = Field(
        default=None, description="budget of a drawn text; the pair's own unless given"
    )
    rows: Positive | None = Field(default=None, description="vectors to learn on; all unless given")
    reward: RewardConfig = RewardConfig()
    advantages: Literal["group", "batch"] = "group"
    update: Literal["clip", "cispo"] = "clip"
    clip_low: Share = 0.2
    clip_high: Measure = 0.28
    kl: Weight = Field(default=0.02, description="weight of the KL a token to the supervised AV")
    label_weight: Weight = Field(
        default=0.0, description="weight of the labels' -log p a token: an anchor"
    )
    ar_lr: Measure = Field(default=0.5, description="the AR's rate, as a share of the AV's")
    ar_samples: Positive = Field(default=4, description="texts of a vector that the AR learns on")
    gold_share: Share = Field(
        default=0.25, description="share of the AR's rows that are labels instead of drawn texts"
    )
    contrastive_weight: Weight = 0.1
    contrastive_temperature: Temperature = 0.1
    texts_at_once: Positive = Field(default=128, description="texts that are drawn together")
    texts_per_pass: Positive = Field(default=32, description="texts of one forward and backward")
    merge_adapters: bool = Field(
        default=True, description="draw with dense weights of the AV's own: faster, one copy more"
    )
    brakes: BrakesConfig = BrakesConfig()
    keep: Literal["content", "fve", "last"] = Field(
        default="content",
        description="which checkpoint becomes the pair: the best under the frozen AR of those "
        "whose content has not fallen, the best under the live AR, or the last",
    )

    @model_validator(mode="after")
    def _as_many_as_drawn(self) -> RLSettings:
        if max(self.ar_samples, self.learn_on or 0) > self.samples:
            raise ValueError("ar_samples and learn_on must not exceed samples")
        return self
