"""Losses over the vocabulary in pieces of the batch, so that logits never stand in memory as a whole.

lm:      cross entropy of the next token.
distill: KL(teacher || student) over all tokens of the vocabulary; mix adds a share of cross entropy.
"""
import torch

IGNORED = -1


def piece_gradients(h, output, teacher, targets, mix):
    """h [N, E], output [V, E], teacher ([N, E], [V, E]) or None, targets [N] -> sums [kl, lm, teacher lm], dlogits [N, V].

    mix is the share of cross entropy in the loss, KL has the rest. Tokens without a target count for KL alone.
    """
    logits = (h @ output.t()).float()
    lse = logits.logsumexp(-1, keepdim=True)
    valid = (targets != IGNORED).unsqueeze(-1)
    hit = torch.arange(output.shape[0], device=h.device) == targets.unsqueeze(-1)
    predicted = torch.exp(logits - lse)
    lm = torch.where(valid, lse - (logits * hit).sum(-1, keepdim=True), 0.0).sum()
    gradient = mix * torch.where(valid, predicted - hit.float(), 0.0)
    if teacher is None:
        return torch.stack([torch.zeros_like(lm), lm, torch.zeros_like(lm)]), gradient.to(h.dtype)
    wanted = (teacher[0] @ teacher[1].t()).float()
    wanted_lse = wanted.logsumexp(-1, keepdim=True)
    probability = torch.exp(wanted - wanted_lse)
    kl = (probability * (wanted - wanted_lse - logits + lse)).sum()
    teacher_lm = torch.where(valid, wanted_lse - (wanted * hit).sum(-1, keepdim=True), 0.0).sum()
    gradient = gradient + (1 - mix) * (predicted - probability)
    return torch.stack([kl, lm, teacher_lm]), gradient.to(h.dtype)


class VocabularyLoss(torch.autograd.Function):
    """-> (loss, sums [kl, lm, teacher lm] per token). Gradients are made on the way, piece by piece."""

    @staticmethod
    def forward(ctx, h, output, given):
        """given: dict of teacher, targets, mix (as in piece_gradients), pieces, and function, piece_gradients or what compiles it"""
        teacher, targets, mix, pieces, piece = (given[name] for name in ("teacher", "targets", "mix", "pieces", "function"))
        count, targeted = h.shape[0], (targets != IGNORED).sum().clamp(min=1)
        grad_h, grad_w, sums = torch.empty_like(h), None, 0
        if ctx.needs_input_grad[1]:
            grad_w = torch.zeros(output.shape, device=h.device)
        for i in range(0, count, -(-count // pieces)):
            part = slice(i, min(i + -(-count // pieces), count))
            known = None if teacher is None else (teacher[0][part], teacher[1])
            found, dlogits = piece(h[part], output, known, targets[part], mix)
            grad_h[part] = dlogits @ output
            if grad_w is not None:
                grad_w += dlogits.t() @ h[part]
            sums = sums + found
        ctx.save_for_backward(grad_h / count, None if grad_w is None else (grad_w / count).to(output.dtype))
        means = sums / torch.stack([torch.full_like(targeted, count), targeted, targeted])
        ctx.mark_non_differentiable(means)
        return (1 - mix) * means[0] + mix * means[1], means

    @staticmethod
    def backward(ctx, grad, _):
        grad_h, grad_w = ctx.saved_tensors
        return grad * grad_h, None if grad_w is None else grad * grad_w, None


def shortfall(decided, target_cr):
    """decided: mean alpha of every layer and head, a flat tensor -> max(0, prior - mean)."""
    return torch.relu(1 - 1 / target_cr - decided.mean())
