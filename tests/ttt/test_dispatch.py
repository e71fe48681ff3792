import pytest
import torch

from scfusionttt.errors import SettingError
from scfusionttt.ttt import step_sizes, ttt_linear, ttt_mlp


def tensors(b=2, h=2, f=8):
    names = {"q": (b, h, 20, f), "k": (b, h, 20, f), "v": (b, h, 20, f), "lr": (b, h, 20), "tau": (16,)}
    names |= {"w0": (h, f, f), "b0": (h, f), "gamma": (h, f), "beta": (h, f)}
    return {name: torch.full(shape, 0.1) for name, shape in names.items()}


def test_only_what_is_asked_for_is_returned():
    result = ttt_linear(**tensors())
    assert result.out.shape == (2, 2, 20, 8)
    assert result.loss is None
    assert result.state is None


def test_what_is_asked_for():
    result = ttt_linear(**tensors(), return_loss=True, return_state=True)
    assert result.loss.shape == (2, 2, 20)
    assert [s.shape for s in result.state] == [(2, 2, 8, 8), (2, 2, 8)]


def test_step_sizes_start_at_one_over_rank_and_stay_positive():
    delta = torch.tensor([0.0, 0.25, -1.0])
    assert step_sizes(delta).tolist() == [1.0, 0.75, 0.0]


def test_an_unknown_backend_is_named():
    with pytest.raises(SettingError, match="'magic' does not exist; choose auto"):
        ttt_linear(**tensors(), backend="magic")


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("q", (2, 20, 8), r"q must be \[b, h, t, f\]"),
        ("q", (2, 2, 0, 8), "at least one token"),
        ("k", (2, 2, 19, 8), r"k must be \[2, 2, 20, 8\]"),
        ("lr", (2, 20, 2), r"lr must be \[2, 2, 20\]"),
        ("tau", (8,), r"tau must be \[16\]"),
        ("w0", (8, 8), r"w0 must be \[2, 8, 8\]"),
        ("b0", (3, 2, 8), r"b0 must be \[2, 8\]"),
        ("gamma", (8,), r"gamma must be \[2, 8\]"),
        ("mask", (2, 2, 20), r"mask must be \[2, 20\]"),
    ],
)
def test_a_wrong_shape_is_named(name, shape, message):
    with pytest.raises(ValueError, match=message) as error:
        ttt_linear(**tensors() | {name: torch.ones(shape, dtype=torch.bool if name == "mask" else None)})
    assert "\n" not in str(error.value)


def test_an_integer_mask_is_refused():
    with pytest.raises(ValueError, match="mask must be bool"):
        ttt_linear(**tensors(), mask=torch.ones(2, 20))


def test_a_mini_batch_without_a_token_is_refused():
    with pytest.raises(ValueError, match="mini_batch must be at least 1, not 0"):
        ttt_linear(**tensors() | {"tau": torch.ones(0)}, mini_batch=0)


@pytest.mark.parametrize("name", ["q", "lr", "b0"])
def test_complex_tensors_are_refused(name):  # their imaginary part would be lost without a word
    given = tensors()
    with pytest.raises(ValueError, match=f"{name} must be (real|float32 or float64), not torch.complex64"):
        ttt_linear(**given | {name: given[name].to(torch.complex64)})


@pytest.mark.parametrize("option", ["reverse", "return_state"])
def test_what_both_directions_exclude(option):
    with pytest.raises(ValueError, match="leave out reverse and return_state"):
        ttt_linear(**tensors(), both=True, **{option: True})


def test_an_odd_head_has_no_rotary_positions():
    with pytest.raises(ValueError, match="even head size, not 7"):
        ttt_linear(**tensors(f=7))
    assert ttt_linear(**tensors(f=7), rope=False).out.shape == (2, 2, 20, 7)


def test_half_precision_states_are_refused():
    with pytest.raises(ValueError, match="w0 must be float32 or float64"):
        ttt_linear(**tensors() | {"w0": torch.ones(2, 8, 8).half()})


def test_the_hidden_width_of_the_mlp_is_free():
    inputs = tensors()
    del inputs["w0"], inputs["b0"]
    state = {"w1": torch.ones(2, 8, 12), "b1": torch.ones(2, 12), "w2": torch.ones(2, 12, 8), "b2": torch.ones(2, 8)}
    assert ttt_mlp(**inputs, **state).out.shape == (2, 2, 20, 8)
    with pytest.raises(ValueError, match=r"w2 must be \[2, 12, 8\]"):
        ttt_mlp(**inputs, **state | {"w2": torch.ones(2, 8, 8)})


@pytest.mark.parametrize("backend", ["auto", "cpu", "chunked", "definition"])
@pytest.mark.parametrize(("b", "h"), [(0, 2), (2, 0)])
def test_no_cells_or_no_heads_give_empty_results(backend, b, h):
    given = {name: x.requires_grad_() for name, x in tensors(b=b, h=h).items()}
    result = ttt_linear(**given, backend=backend, return_loss=True, return_state=True)
    assert (result.out.shape, result.loss.shape) == ((b, h, 20, 8), (b, h, 20))
    assert [s.shape for s in result.state] == [(b, h, 8, 8), (b, h, 8)]
    result.out.sum().backward()
    assert all(x.grad is None or not x.grad.any() for x in given.values())


@pytest.mark.parametrize("backend", ["cpu", "chunked", "definition"])
def test_the_first_part_of_the_state_decides_the_precision(backend):
    given = tensors()
    result = ttt_linear(**given | {"b0": given["b0"].double()}, backend=backend, return_state=True)
    assert {result.out.dtype, *(s.dtype for s in result.state)} == {torch.float32}
