"""Step time of the GRPO trainer, side by side in one run: TRL's stock trainer and ours with each saving on and off.

    python benchmarks/trainer_step.py [--rows 128] [--steps 4] [--device cpu]

Every variant trains the same tiny Llama on the same problems; rewards are drawn so that half of the rollouts lie in
groups with a signal (effective gradient ratio 0.5), whatever the model writes, and grading costs nothing. So what is
compared is sampling and updating. Completion lengths vary as an end token's chance makes them. Figures are CPU seconds
of this process where it runs on CPU, so that load by others counts little, and wall seconds on a GPU; the ratios are
what to quote.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, cast

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import GRPOConfig, GRPOTrainer

from data_curation import Problem, Test
from rlvr.budget import SuccessRates, Uniform
from rlvr.config import GRPORecipe
from rlvr.curriculum import ProblemSchedule
from rlvr.rewards import GradedRollout, ProgramGrader
from rlvr.training.grpo import grpo_config
from rlvr.training.grpo_trainer import GroupedGRPOTrainer
from sandbox import Judgement, Verdict

GROUP = 8
VARIANTS: dict[str, dict[str, bool]] = {
    "ours, nothing saved": {"skip_zero_signal": False, "pack_micro_batches": False, "fast_sampling": False},
    "+ sampling": {"skip_zero_signal": False, "pack_micro_batches": False, "fast_sampling": True},
    "+ skipping": {"skip_zero_signal": True, "pack_micro_batches": False, "fast_sampling": True},
    "+ packing": {"skip_zero_signal": True, "pack_micro_batches": True, "fast_sampling": True},
    "+ no padding": {
        "skip_zero_signal": True,
        "pack_micro_batches": True,
        "fast_sampling": True,
        "padding_free": True,
    },
}


class HalfMixed:
    """Grades without looking: every second problem passes always, the others alternate."""

    seconds = 0.0

    def __init__(self, problems: list[Problem]) -> None:
        self.number = {problem.id: i for i, problem in enumerate(problems)}

    def outcomes(self, ids: list[str]) -> list[float]:
        return [1.0 if self.number[key] % 2 == 0 or row % 2 else 0.0 for row, key in enumerate(ids)]

    def grade(self, problems: list[Problem], completions: list[str], stream: Any = None) -> list[GradedRollout]:
        scores = self.outcomes([problem.id for problem in problems])
        judged = {1.0: Judgement(Verdict.AC), 0.0: Judgement(Verdict.WA)}
        return [GradedRollout("", judged[score], score, score) for score in scores]

    def begin(self, problem: Problem, completion: str) -> None:
        return None


def tokenizer(vocab: int, folder: Path) -> PreTrainedTokenizerFast:
    words = {"<pad>": 0, **{f"<end{i}>": i for i in range(1, 2)}, **{f"w{i}": i for i in range(2, vocab)}}
    inner = Tokenizer(models.WordLevel(words, unk_token="w2"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token="<end1>", unk_token="w2", padding_side="left"
    )
    made.save_pretrained(folder)
    return made


def model(vocab: int, hidden: int, layers: int) -> LlamaForCausalLM:
    torch.manual_seed(0)
    made = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocab, hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=4,
            intermediate_size=3 * hidden, tie_word_embeddings=False, max_position_embeddings=2048,
            pad_token_id=0, eos_token_id=1, bos_token_id=None,
        )
    )  # fmt: skip
    with torch.no_grad():  # so that an untrained model ends its completions after varied lengths: see `MEAN_LENGTH`
        made.lm_head.weight[1].zero_()
    return made


def run(name: str, options: argparse.Namespace, folder: Path, switches: dict[str, bool] | None) -> dict[str, float]:
    vocab = options.vocab
    names = tokenizer(vocab, folder / "tokenizer")
    policy = model(vocab, options.hidden, options.layers)
    generator = torch.Generator().manual_seed(1)
    problems = []
    for i in range(options.rows // GROUP * options.steps):
        words = int(torch.randint(options.prompt // 4, options.prompt, (1,), generator=generator))
        statement = " ".join(f"w{int(t)}" for t in torch.randint(2, vocab, (words,), generator=generator))
        problems.append(Problem(id=f"p{i:04d}", statement=statement, tests=[Test(input="", output="")]))
    recipe = GRPORecipe.model_validate(
        {
            "name": "benchmark",
            "output_dir": str(folder / name.replace(" ", "-")),
            "model": {"name_or_path": "none"},
            "data": {"problems": "none"},
            "prompt": {"style": "plain", "template": "{statement}"},
            "grpo": {
                "problems_per_step": options.rows // GROUP,
                "num_generations": GROUP,
                "per_device_train_batch_size": options.micro,
                "max_steps": options.steps,
                "max_completion_length": options.completion,
                "learning_rate": 0.0 + 1e-12,
                "save_steps": 10_000,
                # one end token among many words: lengths are geometric with this mean
                "extra": {"generation_kwargs": {"sequence_bias": [[[1], options.bias]]}},
                **(switches or {}),
            },
        }
    )
    config = grpo_config(recipe, 1)
    schedule = ProblemSchedule([p.id for p in problems], options.rows // GROUP, [], shuffle=False)
    grader = HalfMixed(problems)
    seconds: dict[str, list[float]] = {"generate": [], "step": []}

    def clock() -> float:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
            return time.perf_counter()
        return time.process_time()

    class Timed:
        def _generate_single_turn(self, *args: Any, **kwargs: Any) -> Any:
            started = clock()
            result = super()._generate_single_turn(*args, **kwargs)  # type: ignore[misc]
            seconds["generate"].append(clock() - started)
            return result

        def training_step(self, *args: Any, **kwargs: Any) -> Any:
            started = clock()
            result = super().training_step(*args, **kwargs)  # type: ignore[misc]
            seconds["step"].append(clock() - started)
            return result

    torch.manual_seed(0)
    if switches is None:
        rows = [{"prompt": p.statement, "problem_id": p.id} for p in problems]

        class Stock(Timed, GRPOTrainer):
            pass

        def told(completions: Any, problem_id: Any, **_: Any) -> list[float | None]:
            return [*grader.outcomes(problem_id)]

        trainer: Any = Stock(
            model=policy,
            processing_class=names,
            reward_funcs=[told],
            args=GRPOConfig(**{k: v for k, v in config.to_dict().items() if k != "generation_batch_size"}),
            train_dataset=Dataset.from_list(rows),
        )
    else:

        class Ours(Timed, GroupedGRPOTrainer):
            pass

        trainer = Ours(
            recipe=recipe,
            problems={p.id: p for p in problems},
            prompts={p.id: p.statement for p in problems},
            schedule=schedule,
            policy=Uniform(),
            rates=SuccessRates(),
            grader=cast(ProgramGrader, grader),
            model=policy,
            processing_class=names,
            args=config,
            train_dataset=Dataset.from_dict({"prompt": [""] * len(problems)}),
        )
    trainer.train()
    per_step = len(seconds["step"]) // options.steps
    steps = [sum(seconds["step"][i * per_step : (i + 1) * per_step]) for i in range(options.steps)]
    updates = [whole - part for whole, part in zip(steps, seconds["generate"], strict=True)]
    tokens = trainer.state.num_input_tokens_seen / options.steps
    figures = {
        "step": statistics.median(steps[1:]),
        "generate": statistics.median(seconds["generate"][1:]),
        "update": statistics.median(updates[1:]),
    }
    return {**figures, "tokens_per_step": tokens, "tokens_per_second": tokens / figures["step"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=128, help="rollouts a step")
    parser.add_argument("--micro", type=int, default=32, help="rollouts a micro-batch")
    parser.add_argument("--steps", type=int, default=4, help="the first one is not counted")
    parser.add_argument("--prompt", type=int, default=48, help="longest prompt, in tokens")
    parser.add_argument("--completion", type=int, default=96, help="longest completion, in tokens")
    parser.add_argument("--bias", type=float, default=3.5, help="logit of the end token above the others'")
    parser.add_argument("--vocab", type=int, default=1024)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = {"TRL": run("TRL", options, Path(folder), None)}
        for name, switches in VARIANTS.items():
            found[name] = run(name, options, Path(folder), switches)
    if options.json:
        print(json.dumps(found, indent=2))
        return
    base = found["TRL"]
    unit = "s" if torch.cuda.is_available() else "CPU s"
    print(f"{options.rows} rollouts a step, {base['tokens_per_step']:.0f} tokens; {unit}; ratio to TRL in brackets")
    for name, row in found.items():
        cells = "  ".join(f"{k} {row[k]:6.3f} ({base[k] / row[k]:4.2f}x)" for k in ("step", "generate", "update"))
        print(f"{name:22s} {cells}  {row['tokens_per_second']:8.0f} tokens/s")


if __name__ == "__main__":
    main()
