"""Properties of whole networks: gradients, exact masking, independence of cells, the three stages."""

from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scfusionttt.config import NetworkConfig, Sizes
from scfusionttt.nn.networks import ClassifierNetwork, PretrainNetwork, TransferNetwork, build_network
from scfusionttt.nn.tokens import CellInputs, VisibleTokens
from scfusionttt.training.masking import visible_tokens

N_GENES, N_PROTEINS, N_TOKENS = 26, 3, 7
MIXERS, FUSIONS = ("ttt", "ttt_mlp", "attention", "none"), ("ttt", "attention", "add")
KINDS = list(product(MIXERS, FUSIONS))
DIRECTED = [  # only TTT layers have a direction
    (mixer, fusion, direction)
    for mixer, fusion in KINDS
    for direction in ("both", "alternate", "forward", "causal")
    if direction == "both" or "ttt" in f"{mixer} {fusion}"
]
SIZES = Sizes(pool_slots=2, landmarks=20)
POISON = [torch.nan, torch.inf, -1e9]


@pytest.fixture
def network(config, seeded):
    """Return a factory of networks by stage, in training mode."""

    def make(stage="pretrain", *, g=N_GENES, p=N_PROTEINS, **settings):
        return seeded(build_network, stage, g, p, 4, config(**settings), SIZES).train()

    return make


def poisoned(inputs, value):
    """Overwrite everything that was not measured with a value."""
    return inputs._replace(
        rna=torch.where(inputs.rna_present, inputs.rna, value),
        protein=torch.where(inputs.protein_present, inputs.protein, value),
    )


def some_hidden():
    generator = torch.Generator().manual_seed(0)
    return VisibleTokens(*(torch.rand(5, t, generator=generator) > 0.3 for t in (N_TOKENS, N_PROTEINS)))


def some_removed():
    """Return hidden tokens that are also removed, as in training."""
    return visible_tokens(
        5, N_TOKENS, N_PROTEINS, mask_ratio=0.4, protein_mask_ratio=0.3, hide_protein=0.4,
        generator=torch.Generator().manual_seed(0), device=torch.device("cpu"),
    )  # fmt: skip


def error_of(fused):
    """Return the projection's error, None where there is none."""
    return fused.protein and fused.protein.projection_error


def outputs(network, inputs, visible=None):
    """Return all outputs of a network."""
    out = network(inputs, visible)
    if isinstance(network, PretrainNetwork):
        return [x for x in (*out[:4], out.fused.z, error_of(out.fused)) if x is not None]
    return [x for x in (out[0], out[1].z, error_of(out[1])) if x is not None]


def gradients(network, inputs, visible=None):
    network.zero_grad(set_to_none=True)
    sum(x.square().sum() for x in outputs(network, inputs, visible)).backward()
    return {name: p.grad for name, p in network.named_parameters()}


def assert_learns(network, inputs, visible):
    """Expect a finite gradient, not zero, of every parameter."""
    results = gradients(network, inputs, visible)
    assert [name for name, g in results.items() if g is None or not torch.isfinite(g).all() or not g.any()] == []


def assert_same(one, other):
    assert len(one) == len(other) > 0
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize(("mixer", "fusion", "direction"), DIRECTED)
def test_every_parameter_has_a_finite_gradient(network, cells, mixer, fusion, direction):
    pretrain = network(mixer=mixer, fusion=fusion, direction=direction, encoder_blocks=2)
    assert_learns(pretrain, cells(absent=0.2), some_hidden())


@pytest.mark.parametrize("stage", ["pretrain", "finetune", "transfer"])
@pytest.mark.parametrize(("mixer", "fusion"), KINDS)
def test_values_of_absent_features_do_not_matter(network, cells, stage, mixer, fusion):
    inputs = cells(absent=0.4)
    inputs.rna_present[0, :4] = False  # a whole token
    inputs.rna_present[1] = False  # all genes
    inputs.protein_present[2] = False  # all proteins
    inputs.protein_present[:, 0] = False  # a protein that no cell has
    tested = network(stage, mixer=mixer, fusion=fusion)
    expected, learned = outputs(tested, inputs), gradients(tested, inputs)
    for value in POISON:
        other = poisoned(inputs, value)
        assert_same(outputs(tested, other), expected)
        for name, gradient in gradients(tested, other).items():
            assert gradient is learned[name] is None or torch.equal(gradient, learned[name]), name


@settings(max_examples=30)
@given(st.data())
def test_exact_masking_holds_for_any_pattern(data):
    config = NetworkConfig(patch=3, width=8, heads=1, encoder_blocks=1, decoder_blocks=1, latent=4, mini_batch=2)
    torch.manual_seed(0)
    network = PretrainNetwork(7, 2, config, SIZES)
    pattern = st.lists(st.booleans(), min_size=18, max_size=18)
    present = torch.tensor(data.draw(pattern)).view(2, 9)
    hidden = torch.tensor(data.draw(st.lists(st.booleans(), min_size=10, max_size=10))).view(2, 5)
    inputs = CellInputs(torch.randn(2, 7), present[:, :7], torch.randn(2, 2), present[:, 7:], torch.empty(2, 0).long())
    visible = VisibleTokens(~hidden[:, :3], ~hidden[:, 3:])
    value = data.draw(st.sampled_from(POISON) | st.floats(width=32))
    assert_same(outputs(network, poisoned(inputs, value), visible), outputs(network, inputs, visible))


@pytest.mark.parametrize(("mixer", "fusion"), KINDS)
def test_hidden_tokens_reach_neither_the_latent_vector_nor_reconstructions(network, cells, mixer, fusion):
    inputs, visible = cells(), some_hidden()
    visible.protein[0] = False  # all proteins of a cell
    hidden_genes = ~visible.rna.repeat_interleave(4, dim=1)[:, :N_GENES]
    other = inputs._replace(
        rna=torch.where(hidden_genes, 1e6, inputs.rna), protein=torch.where(visible.protein, inputs.protein, 1e6)
    )
    tested = network(mixer=mixer, fusion=fusion)
    assert_same(outputs(tested, other, visible), outputs(tested, inputs, visible))


@pytest.mark.parametrize(("mixer", "fusion"), [("attention", "attention"), ("none", "add")])
def test_removing_hidden_tokens_equals_masking_them_where_places_do_not_matter(network, cells, mixer, fusion):
    """TTT layers differ: their inner mini-batches count the tokens that are left."""
    visible = some_removed()
    masked = VisibleTokens(visible.rna, visible.protein)
    tested, inputs = network(mixer=mixer, fusion=fusion), cells(absent=0.2)
    has_protein = visible.protein.any(dim=1)
    for one, other in zip(outputs(tested.eval(), inputs, visible), outputs(tested, inputs, masked), strict=True):
        torch.testing.assert_close(one[has_protein], other[has_protein])


@pytest.mark.parametrize(("mixer", "fusion"), KINDS)
def test_a_network_without_its_hidden_tokens_has_a_gradient_for_every_parameter(network, cells, mixer, fusion):
    assert_learns(network(mixer=mixer, fusion=fusion), cells(absent=0.2), some_removed())


@pytest.mark.parametrize(("mixer", "fusion"), KINDS)
def test_a_cell_does_not_depend_on_the_others_of_its_batch(network, cells, mixer, fusion):
    tested = network(mixer=mixer, fusion=fusion).eval()
    inputs = cells(n=9, absent=0.3)
    inputs.protein_present[4] = False
    together = outputs(tested, inputs)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    shuffled = outputs(tested, CellInputs(*(x[order] for x in inputs)))
    alone = [outputs(tested, CellInputs(*(x[i : i + 1] for x in inputs))) for i in range(9)]
    for k, whole in enumerate(together):
        torch.testing.assert_close(shuffled[k], whole[order], rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(torch.cat([one[k] for one in alone]), whole, rtol=1e-6, atol=5e-6)


def test_cells_without_proteins_use_the_projection(network, cells):
    tested = network().eval()
    inputs = cells()
    inputs.protein_present[:3] = False
    before = tested(inputs).fused
    with torch.no_grad():
        tested.backbone.projection.layers[-1].bias += 1
    after = tested(inputs).fused
    assert torch.isfinite(before.z).all()
    assert (before.z[:3] != after.z[:3]).any(dim=1).all()
    assert torch.equal(before.z[3:], after.z[3:])


def test_the_error_of_the_projection_trains_the_projection_alone(network, cells):
    tested = network()
    error_of(tested(cells()).fused).backward()
    pulled = {name.split(".")[1] for name, p in tested.named_parameters() if p.grad is not None}
    assert pulled == {"projection"}
    assert error_of(tested.eval()(cells()).fused) is None


@pytest.mark.parametrize("stage", ["pretrain", "finetune", "transfer"])
@pytest.mark.parametrize(
    "shape", [{"p": 0}, {"p": 0, "latent": 0}, {"latent": 0}, {"patch": 1}, {"patch": 100}, {"g": 1, "p": 1}]
)
def test_unusual_shapes_work_in_all_three_stages(network, cells, stage, shape):
    tested = network(stage, **shape)
    g, p = shape.get("g", N_GENES), shape.get("p", N_PROTEINS)
    inputs = cells(g=g, p=p)
    expected = outputs(tested, inputs)
    assert all(torch.isfinite(x).all() for x in expected)
    assert expected[0].shape == ((5, g) if stage == "pretrain" else (5, 4))
    learned = gradients(tested, inputs)
    assert all(torch.isfinite(g).all() for g in learned.values() if g is not None)


def test_a_student_ignores_measured_proteins_bit_for_bit(network, cells):
    student = network("transfer").eval()
    with_proteins, without = cells(), cells()
    without.protein_present[:] = False
    assert_same(outputs(student, with_proteins), outputs(student, without))


def test_only_projection_and_head_of_a_student_learn_and_fine_tuning_frees_the_rest(network):
    student = network("transfer")
    learning = {name for name, p in student.named_parameters() if p.requires_grad}
    parts = ("head.", "skip.", "backbone.projection.")
    assert learning == {name for name, _ in student.named_parameters() if name.startswith(parts)}
    assert all(p.requires_grad for p in ClassifierNetwork(student.backbone, 4).parameters())


def test_a_student_of_a_model_without_proteins_learns_its_head(network):
    student = network("transfer", p=0)
    assert {name for name, p in student.named_parameters() if p.requires_grad} == {
        "head.weight",
        "head.bias",
        "skip.weight",
    }


@pytest.mark.parametrize(
    ("stage", "kind"), [("pretrain", PretrainNetwork), ("finetune", ClassifierNetwork), ("transfer", TransferNetwork)]
)
def test_the_weights_of_a_stage_determine_its_outputs(network, cells, config, stage, kind):
    one, other = network(stage).eval(), build_network(stage, N_GENES, N_PROTEINS, 4, config(), SIZES).eval()
    assert type(one) is kind
    assert not torch.equal(outputs(one, cells())[0], outputs(other, cells())[0])
    other.load_state_dict(one.state_dict())
    assert_same(outputs(one, cells()), outputs(other, cells()))


def test_only_requested_reconstructions_are_computed(network, cells):
    tested = network().eval()
    from_z = tested(cells(), from_tokens=False)
    from_tokens = tested(cells(), from_z=False)
    assert [x is None for x in from_z[:4]] == [True, True, False, False]
    assert [x is None for x in from_tokens[:4]] == [False, False, True, True]
    assert [x is None for x in network(decoder_blocks=0)(cells())[:4]] == [True, True, False, False]


@pytest.mark.parametrize("settings", [{}, {"latent": 0}])
def test_rebuilt_values_do_not_depend_on_what_is_hidden(network, cells, settings):
    """Features are hidden by gene, within tokens too, if the bottleneck is read, and by token if tokens are."""
    tested = network(decoder_blocks=1, **settings).eval()
    inputs = cells(n=5)
    hidden = torch.zeros(N_GENES + inputs.protein.shape[1], dtype=torch.bool)
    hidden[:4] = hidden[N_GENES] = True
    genes, proteins = hidden[:N_GENES], hidden[N_GENES:]
    other = inputs._replace(rna=inputs.rna + 9 * genes, protein=inputs.protein + 9 * proteins)
    with torch.no_grad():
        rebuilt = tested.rebuild(inputs, hidden)
        torch.testing.assert_close(tested.rebuild(other, hidden), rebuilt)
        assert rebuilt.shape == (5, len(hidden))
        seen = tested.rebuild(other, torch.zeros_like(hidden))
    assert not torch.allclose(seen, rebuilt)


@pytest.mark.parametrize("fusion", ["ttt", "attention", "add"])
def test_the_summary_token_reads_the_whole_cell(network, cells, fusion):
    settings = {"latent": 0, "decoder_blocks": 1, "fusion": fusion, "direction": "causal"}
    tested = network(readout="summary", **settings).eval()
    inputs = cells(n=4)
    changed = inputs._replace(rna=inputs.rna + 1.0 * (torch.arange(N_GENES) == 0))
    with torch.no_grad():
        z, other = (tested.backbone(given).bottleneck for given in (inputs, changed))
        assert z.shape == (4, tested.backbone.rna_encoder.embedding.position.shape[1])
        assert (z != other).any(dim=1).all()  # the first gene, in a causal sequence
        if fusion == "add":  # else each modality also reads the summary of the other
            mean = network(**settings).eval()
            for name in ("rna_encoder", "protein_encoder"):
                encoder = getattr(tested.backbone, name)
                getattr(mean.backbone, name).load_state_dict(encoder.state_dict(), strict=False)
            torch.testing.assert_close(tested.backbone(inputs).rna.values, mean.backbone(inputs).rna.values)


def test_hidden_tokens_are_removed_as_in_training(network, cells):
    """Absent tokens that stayed in the sequence would have shifted the others within their mini-batches."""
    hidden = torch.tensor([True, False, True]), torch.tensor([False, True])
    visible = VisibleTokens.all_but(*hidden, 2)
    assert visible.rna.tolist() == [[False, True, False]] * 2 and visible.rna_positions.tolist() == [[1]] * 2
    assert visible.protein_positions.tolist() == [[0]] * 2
    nothing, everything = torch.zeros(3, dtype=torch.bool), torch.ones(2, dtype=torch.bool)
    assert VisibleTokens.all_but(nothing, everything, 2)[2:] == (None, None)
