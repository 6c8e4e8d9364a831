"""AdaLoRA's allocation of rank: which directions of which matrix may stay, decided while they learn.

Source: Zhang et al. 2023, https://arxiv.org/abs/2303.10512. The arithmetic is peft's `RankAllocator`. What is added here:
when it is asked (each time that the language model steps, and at no other), how its course is cut (a tenth of the steps
at full rank, the last third with the ranks fixed), and that where it stands is part of the weights, so that a stopped
training goes on as if it had never stopped.
"""

from typing import Any

import torch
from torch import Tensor, nn

from lmrec.errors import RecipeError

_FIRST, _LAST = 0.1, 0.33  # shares of the steps before ranks are taken away, and after
_FEWEST = 3
ADAPTER = "default"


class RankAllocation(nn.Module):
    """`begin` says how many steps there will be; `after_step` follows each step of the optimizer."""

    step: Tensor
    sensitivity: Tensor
    uncertainty: Tensor
    kept: Tensor

    def __init__(self, tuner: Any, orthogonality: float) -> None:
        super().__init__()
        self._tuner = (tuner,)  # in a tuple: it holds the language model, which must not be part of this module too
        self.orthogonality = orthogonality
        self.settled = False
        sizes = sum(p.numel() for _, p in self._learning())
        self.register_buffer("step", torch.zeros((), dtype=torch.long))
        self.register_buffer("sensitivity", torch.zeros(sizes))
        self.register_buffer("uncertainty", torch.zeros(sizes))
        self.register_buffer("kept", torch.ones(sum(len(p) for _, p in self._values()), dtype=torch.bool))

    def begin(self, n_steps: int) -> None:
        """n_steps: how often the language model will step. Ranks that were fixed in an earlier training stay so.

        Raises RecipeError where there are too few steps to take ranks away in.
        """
        if self.settled:
            return
        if n_steps < _FEWEST:
            raise RecipeError(
                f"AdaLoRA needs at least {_FEWEST} steps of the language model, and this training has {n_steps}. Raise "
                "training.tuned_epochs, lower training.encoder_interval or training.tuned_batch_events, or choose "
                "encoder.adapter.kind 'lora'"
            )
        config = self._config
        config.total_step = n_steps
        config.tfinal = max(1, round(_LAST * n_steps))
        config.tinit = min(round(_FIRST * n_steps), n_steps - config.tfinal - 1)

    @torch.no_grad()
    def after_step(self) -> None:
        """Nothing where the language model had no part in the step."""
        if any(p.grad is None for _, p in self._learning()):
            return
        if self.settled:
            self._hold()
            return
        self._take_up()
        self._tuner[0].update_and_allocate(int(self.step))
        self._put_down()
        self.step += 1

    def settle(self) -> None:
        """From now on no rank is given or taken: what is zero stays zero. Where all are, as they begin, nothing was learnt yet,
        and every direction may be."""
        self.settled = True
        has_part = torch.cat([(p != 0).flatten() for _, p in self._values()])
        self.kept.copy_(has_part if has_part.any() else torch.ones_like(has_part))

    def penalty(self) -> Tensor:
        """The mean distance of the directions' products from the identity, a scalar."""
        distances = []
        for name, p in self._learning():
            if "lora_A" in name or "lora_B" in name:
                product = p @ p.T if "lora_A" in name else p.T @ p
                distances.append(torch.linalg.norm(product - torch.eye(len(product), device=p.device)))
        return self.orthogonality * torch.stack(distances).mean()

    @property
    def ranks(self) -> list[int]:
        """How many directions each matrix has that are not zero."""
        return [int((p != 0).sum()) for _, p in self._values()]

    @property
    def _config(self) -> Any:
        return self._tuner[0].peft_config[ADAPTER]

    def _learning(self) -> list[tuple[str, nn.Parameter]]:
        return [(name, p) for name, p in self._tuner[0].model.named_parameters() if "lora_" in name]

    def _values(self) -> list[tuple[str, nn.Parameter]]:
        """The singular values: where one is zero, its direction has no part."""
        return [(name, p) for name, p in self._learning() if "lora_E" in name]

    def _hold(self) -> None:
        start = 0
        for _, p in self._values():
            p.masked_fill_(~self.kept[start : start + len(p)].view(-1, 1), 0.0)
            start += len(p)

    def _take_up(self) -> None:
        """Give the allocator what it knew, where it is a new one."""
        allocator, config = self._tuner[0].rankallocator, self._config
        if int(self.step) and not allocator.exp_avg_ipt:
            named = self._learning()
            sizes = [p.numel() for _, p in named]
            for (name, p), average, spread in zip(
                named, torch.split(self.sensitivity, sizes), torch.split(self.uncertainty, sizes), strict=True
            ):
                allocator.ipt[name] = torch.zeros_like(p)
                allocator.exp_avg_ipt[name] = average.view_as(p).clone()
                allocator.exp_avg_unc[name] = spread.view_as(p).clone()
        if config.rank_pattern is None and not self.kept.all():
            values = self._values()
            masks = torch.split(self.kept, [len(p) for _, p in values])
            config.rank_pattern = {name: mask.tolist() for (name, _), mask in zip(values, masks, strict=True)}

    def _put_down(self) -> None:
        allocator, pattern = self._tuner[0].rankallocator, self._config.rank_pattern
        if allocator.exp_avg_ipt:
            names = [name for name, _ in self._learning()]
            self.sensitivity.copy_(torch.cat([allocator.exp_avg_ipt[name].flatten() for name in names]))
            self.uncertainty.copy_(torch.cat([allocator.exp_avg_unc[name].flatten() for name in names]))
        if pattern is not None:
            masks = [torch.tensor(pattern[name], dtype=torch.bool) for name, _ in self._values()]
            self.kept.copy_(torch.cat(masks))
