import torch

from scfusionttt.nn.tokens import FeatureEmbedding, FeatureReadout, SlotPool, Tokens, masked_mean

EVERYTHING = torch.ones(1, 5, dtype=torch.bool)


def test_a_token_is_the_value_weighted_sum_of_its_features_and_a_position():
    embedding = FeatureEmbedding(5, patch=2, width=4)
    values = torch.tensor([[1.0, -2.0, 3.0, 0.5, 7.0]])
    tokens, present, *_ = embedding(values, EVERYTHING)
    vectors, position = embedding.vectors, embedding.position
    expected = [
        1.0 * vectors[0, 0] - 2.0 * vectors[0, 1] + position[0],
        3.0 * vectors[1, 0] + 0.5 * vectors[1, 1] + position[1],
        7.0 * vectors[2, 0] + position[2],  # the last patch is partial
    ]
    torch.testing.assert_close(tokens, torch.stack(expected)[None])
    assert present.all()


def test_tokens_at_positions_are_those_of_all_tokens():
    embedding, pool = FeatureEmbedding(13, patch=2, width=4), SlotPool(7, width=4, n_slots=3)
    values, present = torch.randn(3, 13), torch.rand(3, 13) > 0.3
    positions = torch.tensor([[0, 2, 6], [1, 2, 3], [4, 5, 6]])
    every, some = embedding(values, present), embedding(values, present, positions)
    for row, chosen in enumerate(positions):
        assert torch.equal(some.values[row], every.values[row, chosen])
        assert torch.equal(some.present[row], every.present[row, chosen])
    kept = torch.zeros(3, 7, dtype=torch.bool).scatter(1, positions, True)
    torch.testing.assert_close(pool(some), pool(every._replace(present=every.present & kept)))


def test_features_take_the_values_of_their_token_also_in_a_partial_last_patch():
    tokens = torch.tensor([[True, False, False], [False, True, True]])
    assert FeatureEmbedding(5, patch=2, width=4).per_feature(tokens).int().tolist() == [
        [1, 1, 0, 0, 0],
        [0, 0, 1, 1, 1],
    ]


def test_an_absent_feature_stays_out_of_the_sum_and_a_token_without_features_is_absent():
    embedding = FeatureEmbedding(5, patch=2, width=4)
    present = torch.tensor([[True, False, True, True, False]])
    tokens, token_present, *_ = embedding(torch.tensor([[1.0, torch.nan, 3.0, 0.5, 1e9]]), present)
    torch.testing.assert_close(tokens[0, 0], embedding.vectors[0, 0] + embedding.position[0])
    torch.testing.assert_close(tokens[0, 2], embedding.position[2])
    assert token_present.tolist() == [[True, True, False]]


def test_zero_counts_as_measured():
    _, present, *_ = FeatureEmbedding(5, patch=2, width=4)(torch.zeros(1, 5), EVERYTHING)
    assert present.all()


def test_readout_gives_one_linear_function_of_its_token_for_each_feature():
    readout = FeatureReadout(5, patch=2, width=4)
    torch.nn.init.normal_(readout.bias)
    tokens = torch.randn(3, 3, 4)
    values = readout(tokens)
    assert values.shape == (3, 5)
    torch.testing.assert_close(values[:, 3], tokens[:, 1] @ readout.vectors[1, 1] + readout.bias[1, 1])
    torch.testing.assert_close(values[:, 4], tokens[:, 2] @ readout.vectors[2, 0] + readout.bias[2, 0])


def test_masked_mean_is_that_of_the_present_tokens_and_zero_without_any():
    tokens = torch.randn(2, 3, 16)
    mean = masked_mean(Tokens(tokens, torch.tensor([[True, True, False], [False, False, False]])))
    torch.testing.assert_close(mean, torch.stack([tokens[0, :2].mean(dim=0), torch.zeros(16)]))


def test_the_first_slot_starts_as_the_mean_of_the_present_tokens(config):
    tokens = torch.randn(2, 7, 16)
    present = torch.tensor([[True] * 7, [True, False, True, True, False, False, True]])
    pooled = SlotPool(7, width=16, n_slots=2)(Tokens(tokens, present))
    assert pooled.shape == (2, 2 * 16)
    expected = torch.stack([tokens[n][present[n]].mean(dim=0) for n in range(2)])
    torch.testing.assert_close(pooled[:, :16], expected)
