"""What is particular to the compiled kernel; its numbers are checked beside the other backends'."""

import logging
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from scfusionttt.errors import SettingError
from scfusionttt.ttt import choice, choose_backend, ttt_linear
from scfusionttt.ttt.parity import TENSORS, make_case
from support import run_python

CPU = torch.device("cpu")


def tensors(head=16, mini_batch=16):
    case = make_case(cells=5, tokens=50, head=head, mini_batch=mini_batch, dtype=torch.float64)
    return {name: case[name] for name in TENSORS}


def gradients(inputs, **options):
    out = ttt_linear(**inputs, backend="cpu", **options).out
    return torch.autograd.grad(out.sin().sum(), list(inputs.values()))


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_threads_change_nothing(two_threads):
    inputs = tensors()
    shared = gradients(inputs)
    torch.set_num_threads(1)
    for found, expected in zip(shared, gradients(inputs)):
        assert torch.equal(found, expected)


def test_callers_in_several_threads_at_once(two_threads):
    inputs = tensors()
    expected = gradients(inputs)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: gradients(inputs), range(8)):
            assert all(torch.equal(x, y) for x, y in zip(found, expected))


@pytest.mark.parametrize(("f", "mini_batch"), [(10, 16), (16, 5)])
def test_what_a_call_leaves_in_a_threads_memory_reaches_no_other(f, mini_batch):
    inputs = tensors(f, mini_batch)
    options = {"mini_batch": mini_batch, "mask": torch.arange(250).view(5, 50) % 7 > 0}
    expected = [gradients(inputs, causal=causal, **options) for causal in (True, False)]
    for causal in (True, False):
        spoilt = {name: (x.detach() * float("nan")).requires_grad_() for name, x in inputs.items()}
        assert gradients(spoilt, causal=causal, **options)[0].isnan().any()
    for causal, clean in zip((True, False), expected, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(gradients(inputs, causal=causal, **options), clean, strict=True))


def test_outputs_lie_as_the_next_projection_reads_them():
    out = ttt_linear(**tensors(), backend="cpu").out
    assert out.transpose(1, 2).is_contiguous()


def test_last_axis_may_have_any_stride():
    inputs = tensors()
    strided = inputs | {"q": inputs["q"].mT.contiguous().mT}
    assert torch.equal(ttt_linear(**strided, backend="cpu").out, ttt_linear(**inputs, backend="cpu").out)


def test_a_model_in_use_keeps_no_states():
    inputs = tensors()
    with torch.no_grad():
        assert ttt_linear(**inputs, backend="cpu").out.grad_fn is None


def test_auto_takes_the_kernel_if_it_fits():
    assert choose_backend("auto", "linear", CPU, 64) == "cpu"
    assert choose_backend("auto", "mlp", CPU, 64) == "chunked"
    assert choose_backend("auto", "linear", CPU, 7) == "chunked"
    assert choose_backend("auto", "linear", torch.device("meta"), 64) == "chunked"


def test_a_kernel_that_does_not_fit_is_refused():
    with pytest.raises(SettingError, match="'cpu' does not fit: the head size 7 is odd; choose auto"):
        choose_backend("cpu", "linear", CPU, 7)


def forget():
    for remembered in (choice._obstacle, choice._auto_takes):
        remembered.cache_clear()


def test_without_numba_one_line_is_logged_and_torch_does_it(monkeypatch, caplog):
    def broken(name):
        raise ImportError("no numba here")

    monkeypatch.setattr(choice, "import_module", broken)
    forget()
    with caplog.at_level(logging.INFO, logger="scfusionttt.ttt.choice"):
        assert choose_backend("auto", "linear", CPU, 64) == "chunked"
        assert choose_backend("auto", "linear", CPU, 64) == "chunked"
    forget()
    assert [record.getMessage() for record in caplog.records] == [
        "TTT runs in plain torch: its kernel does not load (no numba here)"
    ]


def test_nothing_is_compiled_on_import():
    code = "import sys, scfusionttt.ttt; print('numba' in sys.modules)"
    assert run_python(code) == "False\n"


@pytest.mark.slow
@pytest.mark.parametrize("features", [{}, {"NUMBA_CPU_FEATURES": "+avx2,+fma"}])
def test_older_processors_agree_too(tmp_path, features):
    code = """
import torch
from scfusionttt.ttt import step_sizes, ttt_linear
from scfusionttt.ttt.cpu import vector
torch.manual_seed(0)
x = lambda *shape: torch.randn(*shape).double().requires_grad_()
inputs = [x(2, 2, 40, 24), x(2, 2, 40, 24), x(2, 2, 40, 24), torch.rand(2, 2, 40).double() / 24,
          step_sizes(torch.zeros(16).double()), x(2, 24, 24), x(2, 24), x(2, 24), x(2, 24)]
mask = torch.arange(80).view(2, 40) % 7 > 0
results = {"cpu": [], "definition": []}
for backend, causal in ((backend, causal) for backend in results for causal in (True, False)):
    out = ttt_linear(*inputs, backend=backend, mask=mask, causal=causal, both=causal).out
    results[backend] += [out, *torch.autograd.grad(out.sin().sum(), [x for x in inputs if x.requires_grad])]
error = torch.stack([(a - b).abs().max() / b.abs().max() for a, b in zip(*results.values())]).max()
print(vector.VECTOR_BYTES, error.item() < 1e-12)
"""
    found = run_python(code, NUMBA_CPU_NAME="haswell", NUMBA_CACHE_DIR=str(tmp_path), **features)
    assert found.strip() in ({"32 True"} if features else {"32 True", "64 True"})


_GRADIENTS = """
import hashlib
import torch
from scfusionttt.ttt import ttt_linear
from scfusionttt.ttt.parity import TENSORS, make_case
case = make_case(cells=2, tokens=37, head=16)
out = ttt_linear(**case, backend="cpu").out
for gradient in torch.autograd.grad(out.sin().sum(), [case[name] for name in TENSORS]):
    print(hashlib.sha256(gradient.numpy().tobytes()).hexdigest())
"""


@pytest.mark.slow
def test_the_process_that_compiles_computes_what_later_ones_read_from_the_cache(tmp_path):
    """A first run had other gradients, by rounding, than every later one."""
    runs = [run_python(_GRADIENTS, NUMBA_CACHE_DIR=str(tmp_path)) for _ in range(2)]
    assert any(tmp_path.rglob("*.nbi"))
    assert runs[0] == runs[1]


def test_a_number_in_place_of_a_bool_compiles_nothing():
    """Numba took ``reverse=1`` for another type, and compiled both passes for half a minute."""
    from scfusionttt.ttt.cpu import kernels

    inputs = tensors()
    expected = gradients(inputs, reverse=True)
    before = len(kernels.forward.signatures), len(kernels.backward.signatures)
    for found, same in zip(gradients(inputs, reverse=1), expected, strict=True):
        assert torch.equal(found, same)
    assert (len(kernels.forward.signatures), len(kernels.backward.signatures)) == before
