"""The Triton kernels: values and all gradients in float32 against the definition in float64, in Triton's interpreter.

Where there is a GPU, ``TRITON_INTERPRET=0`` runs the same tests on it.
"""

import logging
import os

import pytest
import torch

from scfusionttt.errors import SettingError
from scfusionttt.ttt import choice, choose_backend, parity, ttt_linear
from support import run_python

pytest.importorskip("triton", reason="Triton is not installed: the GPU kernels cannot be tried")

DEVICE = torch.device("cpu" if os.environ["TRITON_INTERPRET"] == "1" else "cuda")


def make_inputs(b=2, h=2, t=21, f=16, mini_batch=16, *, batched=False):
    """Return inputs of `ttt_linear` by name, float64 and exact in float32, as leaves that require gradients."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape, scale=1.0):
        return scale * torch.randn(*shape, generator=generator)

    cells = (b,) if batched else ()
    inputs = {name: normal(b, h, t, f) for name in "qkv"}
    inputs |= {"lr": normal(b, h, t).sigmoid() / f, "tau": 1 / torch.arange(1.0, mini_batch + 1)}
    inputs |= {"w0": normal(*cells, h, f, f, scale=0.1), "b0": normal(*cells, h, f, scale=0.1)}
    inputs |= {"gamma": 1 + normal(h, f, scale=0.1), "beta": normal(h, f, scale=0.1)}
    return {name: x.double().requires_grad_() for name, x in inputs.items()}


def run(inputs, backend, *, both=False, **options):
    """Return outputs, losses, states and, for a scalar that depends on all of them, every gradient."""
    options |= {"mini_batch": len(inputs["tau"]), "return_loss": True, "return_state": not both, "both": both}
    result = ttt_linear(**inputs, backend=backend, **options)
    values = {"out": result.out, "loss": result.loss}
    values |= {} if both else {"w": result.state[0], "b": result.state[1]}
    weights = (torch.linspace(0, 9, x.numel()).sin().view_as(x).to(x) for x in values.values())
    total = sum((weight * x).sum() for weight, x in zip(weights, values.values()))
    gradients = torch.autograd.grad(total, list(inputs.values()))
    results = {name: x.detach() for name, x in values.items()} | {f"d{x}": g for x, g in zip(inputs, gradients)}
    return {name: x.cpu().double() for name, x in results.items()}


def in_single(inputs):
    return {name: x.detach().to(DEVICE, torch.float32).requires_grad_() for name, x in inputs.items()}


def assert_same(inputs, *, truth="definition", mask=None, **options):
    there = None if mask is None else mask.to(DEVICE)
    found = run(in_single(inputs), "gpu", mask=there, **options)
    errors = parity.differences(found, run(inputs, truth, mask=mask, **options))
    assert max(errors.values()) <= 1e-5, errors


def holes(b, t):
    """Return a mask [b, t] with holes, an absent mini-batch and an absent end."""
    mask = torch.arange(b * t).view(b, t) % 5 > 0
    mask[0, :16] = False
    mask[-1, t - t // 3 :] = False
    return mask


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("reverse", [True, pytest.param(False, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("t", "f", "mini_batch", "masked", "batched"), [(1, 16, 16, 0, 0), (37, 16, 16, 1, 1)])
def test_values_and_gradients_are_those_of_the_definition(t, f, mini_batch, masked, batched, causal, reverse):
    inputs = make_inputs(t=t, f=f, mini_batch=mini_batch, batched=batched)
    assert_same(inputs, mask=holes(2, t) if masked else None, causal=causal, reverse=reverse)


@pytest.mark.parametrize(("f", "mini_batch"), [(16, 16), (32, 32), (64, 16), (64, 64), (128, 16)])
def test_every_head_size_with_small_and_large_mini_batches(f, mini_batch):
    assert_same(make_inputs(b=1, h=1, t=67, f=f, mini_batch=mini_batch), truth="chunked")


@pytest.mark.parametrize(("f", "mini_batch", "rope"), [(10, 5, True), (7, 3, False), (24, 24, True)])
def test_sizes_that_are_no_powers_of_two(f, mini_batch, rope):
    inputs = make_inputs(b=1, h=1, t=27, f=f, mini_batch=mini_batch)
    assert_same(inputs, mask=torch.arange(27)[None] % 4 > 0, rope=rope)


@pytest.mark.parametrize("causal", [True, False])
def test_both_directions_in_one_launch(causal):
    assert_same(make_inputs(t=23), mask=holes(2, 23), both=True, causal=causal)


def test_both_directions_are_one_and_the_other():
    inputs = in_single(make_inputs())
    one, other = (ttt_linear(**inputs, backend="gpu", reverse=reverse).out for reverse in (False, True))
    assert torch.equal(ttt_linear(**inputs, backend="gpu", both=True).out, one + other)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("poison", [float("nan"), pytest.param(float("inf"), marks=pytest.mark.slow)])
def test_an_absent_token_changes_nothing(causal, poison):
    mask = holes(2, 21).to(DEVICE)
    clean, poisoned = in_single(make_inputs()), in_single(make_inputs())
    with torch.no_grad():
        for name in ("q", "k", "v", "lr"):
            poisoned[name].movedim(2, 1)[~mask] = poison
    expected, found = (run(inputs, "gpu", mask=mask, causal=causal) for inputs in (clean, poisoned))
    for name, x in expected.items():
        assert torch.equal(found[name], x), name
    for name in ("out", "dq", "dk", "dv", "loss", "dlr"):
        assert not found[name].movedim(2, 1)[~mask.cpu()].any(), name


def test_a_packed_projection_is_read_in_place():
    inputs = in_single(make_inputs())
    packed = torch.stack([inputs[name].detach().transpose(1, 2) for name in "qkv"], 2)  # [b, t, 3, h, f]
    views = dict(zip("qkv", packed.permute(2, 0, 3, 1, 4)))
    out = ttt_linear(**inputs | views, backend="gpu").out
    assert torch.equal(out, ttt_linear(**inputs, backend="gpu").out)
    assert out.transpose(1, 2).is_contiguous()  # as the next projection reads it


def test_a_sequence_in_pieces_with_the_state_carried():
    inputs = in_single(make_inputs(t=40))
    whole = ttt_linear(**inputs, backend="gpu", return_state=True)
    pieces = [{name: inputs[name][:, :, part] for name in ("q", "k", "v", "lr")} for part in (slice(32), slice(32, 40))]
    first = ttt_linear(**inputs | pieces[0], backend="gpu", return_state=True)
    rest = pieces[1] | dict(zip(("w0", "b0"), first.state))
    second = ttt_linear(**inputs | rest, backend="gpu", return_state=True)
    assert torch.equal(torch.cat((first.out, second.out), 2), whole.out)
    assert torch.equal(second.state[0], whole.state[0])


def test_a_model_in_use_keeps_nothing():
    inputs = {name: x.detach() for name, x in in_single(make_inputs()).items()}
    assert ttt_linear(**inputs, backend="gpu").out.grad_fn is None


@pytest.mark.parametrize(
    ("head", "mini_batch", "dtype", "inner", "reason"),
    [
        (130, 16, torch.float32, "linear", "the head size 130 is above 128"),
        (64, 65, torch.float32, "linear", "the mini-batch 65 is above 64"),
        (72, 17, torch.float32, "linear", "the mini-batch 17 is above 16 with a head size above 64"),
        (64, 16, torch.float64, "linear", "its kernel is for float32, not float64"),
        (64, 16, torch.float32, "mlp", "TTT-MLP has no kernel of its own"),
    ],
)
def test_what_does_not_fit_is_named(head, mini_batch, dtype, inner, reason):
    with pytest.raises(SettingError, match=f"'gpu' does not fit: {reason}; choose auto"):
        choose_backend("gpu", inner, DEVICE, head, mini_batch, dtype)


def test_it_is_for_a_gpu(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    choice._obstacle.cache_clear()
    with pytest.raises(SettingError, match="'gpu' does not fit: the data are on cpu; choose auto"):
        choose_backend("gpu", "linear", torch.device("cpu"), 64)
    choice._obstacle.cache_clear()


@pytest.fixture
def automatic(caplog, monkeypatch):
    """Return what ``auto`` takes for data on a GPU, and what it logs; the trial runs where Triton does."""
    difference = parity.difference
    monkeypatch.setattr(choice, "difference", lambda *a, **case: difference(*a, **case | {"device": DEVICE}))
    choice._auto_takes.cache_clear()

    def choose():
        with caplog.at_level(logging.INFO, logger="scfusionttt.ttt.choice"):
            chosen = [choose_backend("auto", "linear", torch.device("cuda"), 16, 4) for _ in range(2)]
        assert chosen[0] == chosen[1]
        return chosen[0], [record.getMessage() for record in caplog.records]

    yield choose
    choice._auto_takes.cache_clear()


def test_auto_takes_a_kernel_that_agrees_on_this_device(automatic):
    assert automatic() == ("gpu", [])


def test_auto_leaves_a_kernel_that_differs_and_logs_it_once(automatic, monkeypatch):
    from scfusionttt.ttt.gpu import layer as gpu

    monkeypatch.setattr(gpu, "_rotations", lambda n, f, device: torch.ones(2, n, f // 2, device=device).unbind())
    chosen, log = automatic()
    assert chosen == "chunked"
    assert len(log) == 1
    assert "its kernel differs from the definition by" in log[0]


def test_auto_leaves_a_kernel_that_does_not_run_and_logs_it_once(automatic, monkeypatch):
    from scfusionttt.ttt.gpu import layer as gpu

    def broken(*_):
        raise RuntimeError("out of resource: shared memory\nmore")

    monkeypatch.setattr(gpu, "_grid", broken)
    message = "TTT runs in plain torch: its kernel does not run on cuda (out of resource: shared memory)"
    assert automatic() == ("chunked", [message])


@pytest.mark.slow
@pytest.mark.parametrize("causal", [True, False])
def test_float32_over_twenty_thousand_tokens(causal):
    inputs = make_inputs(b=1, h=1, t=20_000, f=32)
    found = run(in_single(inputs), "gpu", causal=causal)
    errors = parity.differences(found, run(inputs, "chunked", causal=causal))
    assert errors.pop("dtau") <= 1e-4
    assert max(errors.values()) <= 1e-5, errors


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["ieee", "tf32", "bf16"])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("capability", [80, 90])
def test_the_kernels_compile_without_a_gpu(tmp_path, capability, causal, precision):
    code = f"""
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from scfusionttt.ttt.gpu import kernels as gpu_kernels

fixed = dict(HEADS=2, n=16, f=64, N=16, F=64, CAUSAL={causal}, ROPE=True, MASKED=True, KEEP=True)
fixed["PRECISION"] = "{precision}"
for kernel in (gpu_kernels.forward, gpu_kernels.backward):
    names = kernel.arg_names
    kinds = {{name: "*u8" if name == "mask" else "*fp32" for name in names}}
    for name in names:
        if name in ("tokens", "first") or name.endswith(("_cell", "_head", "_step", "_way")):
            kinds[name] = "i32"
    kinds |= {{name: "constexpr" for name in fixed if name in names}}
    constants = {{(names.index(name),): value for name, value in fixed.items() if name in names}}
    source = ASTSource(kernel, kinds, constants, {{}})
    options = dict(num_warps=8, num_stages=1)
    compiled = triton.compile(source, target=GPUTarget("cuda", {capability}, 32), options=options)
    assert compiled.metadata.shared < 100_000  # bytes, what a GPU for games has
"""
    run_python(code, TRITON_INTERPRET="0", TRITON_CACHE_DIR=str(tmp_path))
