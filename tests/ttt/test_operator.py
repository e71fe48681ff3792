"""Every backend against the token-by-token definition: outputs, losses, states and all gradients, in float64."""

import pytest
import torch

from scfusionttt.ttt import backends, step_sizes, ttt_linear, ttt_mlp
from scfusionttt.ttt.parity import differences

BACKENDS = [backend for backend in backends.BACKENDS if backend != "gpu"]  # that has float32 only, and test_gpu
FAST = [backend for backend in BACKENDS if backend != "definition"]
MLP = ["chunked"]
EVERY = [(backend, False) for backend in FAST] + [(backend, True) for backend in MLP]  # backend, mlp


def make_inputs(b=2, h=2, t=40, f=16, mini_batch=16, *, mlp=False, batched=False, dtype=torch.float64):
    """Return inputs of `ttt_linear` or `ttt_mlp` by name, as leaves that require gradients."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape, scale=1.0):
        return scale * torch.randn(*shape, generator=generator, dtype=torch.float64)

    cells = (b,) if batched else ()
    inputs = {name: normal(b, h, t, f) for name in "qkv"}
    inputs["lr"] = normal(b, h, t).sigmoid() / f
    inputs["tau"] = step_sizes(normal(mini_batch, scale=0.02))
    if mlp:
        inputs |= {"w1": normal(*cells, h, f, 4 * f, scale=f**-0.5), "b1": normal(*cells, h, 4 * f, scale=0.1)}
        inputs |= {"w2": normal(*cells, h, 4 * f, f, scale=f**-0.5 / 2), "b2": normal(*cells, h, f, scale=0.1)}
    else:
        inputs |= {"w0": normal(*cells, h, f, f, scale=f**-0.5), "b0": normal(*cells, h, f, scale=0.1)}
    inputs |= {"gamma": 1 + normal(h, f, scale=0.1), "beta": normal(h, f, scale=0.1)}
    return {name: x.to(dtype).requires_grad_() for name, x in inputs.items()}


def run(inputs, backend, **options):
    """Return outputs, losses, states and, for a scalar that depends on all of them, every gradient."""
    operator = ttt_mlp if "w1" in inputs else ttt_linear
    result = operator(**inputs, backend=backend, return_loss=True, return_state=True, **options)
    values = {"out": result.out, "loss": result.loss} | {f"state{i}": s for i, s in enumerate(result.state)}
    total = sum(
        (torch.linspace(0.5, 1.5, x.numel(), dtype=x.dtype).view_as(x) * x.sin()).sum() for x in values.values()
    )
    leaves = {name: x for name, x in inputs.items() if x.requires_grad}
    gradients = torch.autograd.grad(total, list(leaves.values()))
    return {name: x.detach() for name, x in values.items()} | {f"d{name}": g for name, g in zip(leaves, gradients)}


def assert_close(found, expected):
    errors = differences(found, expected)
    assert max(errors.values()) <= 1e-12, errors


def checker(b, t):
    """Return a mask [b, t] with holes, a whole absent mini-batch and an absent end."""
    mask = torch.arange(b * t).view(b, t) % 5 > 0
    mask[0, 16:32] = False
    mask[-1, t - t // 3 :] = False
    return mask


CASES = [  # t, f, masked, causal, reverse, batched
    (1, 16, False, True, False, False),
    (1, 32, True, False, False, True),
    (7, 64, False, False, True, False),
    (7, 16, True, True, False, False),
    (16, 32, False, True, True, True),
    (63, 16, True, True, True, False),
    (63, 64, False, False, False, True),
    (100, 16, False, True, False, True),
    (100, 32, True, False, True, False),
    (401, 16, True, True, False, False),
    (401, 16, False, False, True, False),
]


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize(("t", "f", "masked", "causal", "reverse", "batched"), CASES)
def test_linear_equals_the_definition(backend, t, f, masked, causal, reverse, batched):
    inputs = make_inputs(t=t, f=f, batched=batched)
    options = {"mask": checker(2, t) if masked else None, "causal": causal, "reverse": reverse}
    assert_close(run(inputs, backend, **options), run(inputs, "definition", **options))


@pytest.mark.parametrize("backend", MLP)
@pytest.mark.parametrize(("t", "f", "masked", "causal", "reverse", "batched"), CASES[3:9])
def test_mlp_equals_the_definition(backend, t, f, masked, causal, reverse, batched):
    inputs = make_inputs(t=t, f=min(f, 32), mlp=True, batched=batched)
    options = {"mask": checker(2, t) if masked else None, "causal": causal, "reverse": reverse}
    assert_close(run(inputs, backend, **options), run(inputs, "definition", **options))


@pytest.mark.slow
@pytest.mark.parametrize(("backend", "mlp"), EVERY)
@pytest.mark.parametrize("f", [32, 64])
@pytest.mark.parametrize("causal", [True, False])
def test_long_sequences_equal_the_definition(backend, mlp, f, causal):
    inputs = make_inputs(t=401, f=f, mlp=mlp)
    options = {"mask": checker(2, 401), "causal": causal}
    assert_close(run(inputs, backend, **options), run(inputs, "definition", **options))


@pytest.mark.parametrize(("backend", "mlp"), EVERY)
@pytest.mark.parametrize(("mini_batch", "f"), [(1, 10), (5, 24), (24, 128)])
def test_any_mini_batch_and_head_size(backend, mlp, mini_batch, f):
    f = min(f, 40) if mlp else f
    inputs = make_inputs(t=33, f=f, mini_batch=mini_batch, mlp=mlp)
    options = {"mini_batch": mini_batch, "rope": mini_batch != 5}
    assert_close(run(inputs, backend, **options), run(inputs, "definition", **options))


@pytest.mark.parametrize(("backend", "mlp"), [(x, False) for x in BACKENDS] + [(x, True) for x in ("definition", *MLP)])
@pytest.mark.parametrize("causal", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_gradients_are_those_of_finite_differences(backend, causal, mlp):
    inputs = make_inputs(b=1, h=1, t=5, f=2, mini_batch=3, mlp=mlp)

    def operator(*args):
        result = (ttt_mlp if mlp else ttt_linear)(
            **dict(zip(inputs, args)), mini_batch=3, causal=causal, backend=backend, return_loss=True, return_state=True
        )
        return result.out, result.loss, *result.state

    assert torch.autograd.gradcheck(operator, tuple(inputs.values()))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("poison", [float("nan"), float("inf"), 1e30])
def test_an_absent_token_changes_nothing(backend, causal, poison):
    mask = checker(2, 40)
    clean, poisoned = make_inputs(), make_inputs()
    with torch.no_grad():
        for name in "qkv":
            poisoned[name][~mask[:, None, :].expand(2, 2, 40)] = poison
        poisoned["lr"][~mask[:, None].expand(2, 2, 40)] = poison
    expected = run(clean, backend, mask=mask, causal=causal)
    found = run(poisoned, backend, mask=mask, causal=causal)
    for name, x in expected.items():
        assert torch.equal(found[name], x), name
    for name in ("out", "dq", "dk", "dv", "loss", "dlr"):
        assert not found[name].movedim(2, 1)[~mask].any(), name


@pytest.mark.parametrize("backend", BACKENDS)
def test_reverse_is_the_flipped_operator(backend):
    inputs = make_inputs(t=37)
    flipped = inputs | {name: inputs[name].flip(2) for name in ("q", "k", "v", "lr")}
    found = ttt_linear(**inputs, reverse=True, backend=backend, return_state=True)
    expected = ttt_linear(**flipped, backend=backend, return_state=True)
    torch.testing.assert_close(found.out, expected.out.flip(2), rtol=0, atol=1e-13)
    torch.testing.assert_close(found.state[0], expected.state[0], rtol=0, atol=1e-13)


@pytest.mark.parametrize(("backend", "mlp"), EVERY)
def test_both_directions_at_once(backend, mlp):
    inputs, operator = make_inputs(t=37, mlp=mlp), ttt_mlp if mlp else ttt_linear
    options = {"mask": checker(2, 37), "causal": not mlp, "backend": backend, "return_loss": True}
    results = [
        [operator(**inputs, **options, both=True)],
        [operator(**inputs, **options, reverse=x) for x in (False, True)],
    ]
    sums = [(sum(x.out for x in part), sum(x.loss for x in part)) for part in results]
    gradients = [torch.autograd.grad((out.sin() * loss[..., None]).sum(), list(inputs.values())) for out, loss in sums]
    for found, expected in zip((*sums[0], *gradients[0]), (*sums[1], *gradients[1])):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_sequence_in_pieces_with_the_state_carried(backend):
    inputs = make_inputs(t=40)
    whole = ttt_linear(**inputs, backend=backend, return_state=True)
    tokens = ("q", "k", "v", "lr")
    first = ttt_linear(
        **inputs | {name: inputs[name][:, :, :32] for name in tokens}, backend=backend, return_state=True
    )
    rest = {name: inputs[name][:, :, 32:] for name in tokens} | dict(zip(("w0", "b0"), first.state))
    second = ttt_linear(**inputs | rest, backend=backend, return_state=True)
    torch.testing.assert_close(torch.cat((first.out, second.out), 2), whole.out, rtol=0, atol=1e-13)
    torch.testing.assert_close(second.state[0], whole.state[0], rtol=0, atol=1e-13)


@pytest.mark.parametrize("backend", FAST)
def test_strided_views_of_a_packed_projection(backend):
    inputs = make_inputs(t=40)
    packed = torch.stack([inputs[name].detach().permute(0, 2, 1, 3) for name in "qkv"], 2)  # [b, t, 3, h, f]
    views = dict(zip("qkv", packed.permute(2, 0, 3, 1, 4)))
    found = ttt_linear(**inputs | views, backend=backend).out
    torch.testing.assert_close(found, ttt_linear(**inputs, backend=backend).out, rtol=0, atol=1e-14)


@pytest.mark.parametrize("backend", BACKENDS)
def test_views_that_begin_at_an_odd_place_in_memory(backend):
    """Pairs that are not whole in memory are copied; a contiguous view had been left where it was, and failed."""
    inputs = make_inputs(t=20)
    views = {name: torch.cat([torch.zeros(1), inputs[name].detach().ravel()])[1:].view(2, 2, 20, 16) for name in "qkv"}
    found = ttt_linear(**inputs | views, backend=backend).out
    torch.testing.assert_close(found, ttt_linear(**inputs, backend=backend).out, rtol=0, atol=1e-14)


@pytest.mark.parametrize(("backend", "mlp"), EVERY)
def test_what_is_kept_for_the_backward_grows_as_the_sequence(backend, mlp):
    def kept(t):
        storages = {}

        def remember(x):
            return storages.setdefault(x.data_ptr(), x)

        with torch.autograd.graph.saved_tensors_hooks(remember, lambda x: x):
            run(make_inputs(b=1, h=1, t=t, mlp=mlp), backend)
        return sum(x.untyped_storage().nbytes() for x in storages.values())

    at_first, later = kept(512) - kept(256), kept(2560) - kept(2304)
    assert 0 < later < 1.1 * at_first


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("wanted", ["q", "v", "lr", "tau", "w0", "gamma"])
def test_gradients_of_a_subset(backend, wanted):
    inputs = make_inputs(t=20)
    everything = run(inputs, backend)
    alone = {name: x if name == wanted else x.detach() for name, x in inputs.items()}
    found = run(alone, backend)[f"d{wanted}"]
    torch.testing.assert_close(found, everything[f"d{wanted}"], rtol=0, atol=1e-12)


@pytest.mark.parametrize("backend", FAST)
def test_gradients_are_the_same_under_gradient_checkpointing(backend):
    inputs = make_inputs(t=40)

    def operator(*args):
        return ttt_linear(**dict(zip(inputs, args)), backend=backend).out

    expected = torch.autograd.grad(operator(*inputs.values()).sin().sum(), list(inputs.values()))
    out = torch.utils.checkpoint.checkpoint(operator, *inputs.values(), use_reentrant=False)
    for found, gradient in zip(torch.autograd.grad(out.sin().sum(), list(inputs.values())), expected):
        assert torch.equal(found, gradient)


@pytest.mark.parametrize("backend", FAST)
def test_half_precision_projections_are_computed_in_float32(backend):
    inputs = {name: x.detach() for name, x in make_inputs(dtype=torch.float32).items()}
    halves = inputs | {name: inputs[name].bfloat16() for name in "qkv"}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = ttt_linear(**halves, backend=backend).out
    rounded = inputs | {name: halves[name].float() for name in "qkv"}
    assert found.dtype == torch.float32
    assert torch.equal(found, ttt_linear(**rounded, backend=backend).out)


@pytest.mark.parametrize(("backend", "mlp"), EVERY)
def test_a_backward_within_autocast_is_computed_in_float32(backend, mlp):
    inputs = make_inputs(t=20, mlp=mlp, dtype=torch.float32)
    expected = run(inputs, backend)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = run(inputs, backend)
    for name, x in expected.items():
        assert torch.equal(found[name], x), name


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_callers_tensors_are_left_alone(backend):
    inputs = make_inputs()
    before = {name: x.detach().clone() for name, x in inputs.items()}
    run(inputs, backend, mask=checker(2, 40), reverse=True)
    for name, x in before.items():
        assert torch.equal(inputs[name], x), name


@pytest.mark.slow
@pytest.mark.parametrize("backend", FAST)
def test_float32_over_twenty_thousand_tokens(backend):
    double = make_inputs(b=1, h=1, t=20_000, f=32)
    single = {name: x.detach().float().requires_grad_() for name, x in double.items()}
    errors = differences({name: x.double() for name, x in run(single, backend).items()}, run(double, backend))
    assert errors.pop("dtau") <= 1e-4
    assert max(errors.values()) <= 1e-5, errors
