"""Images outside the sequence, position by position: which of them each may look at."""

import pytest
import torch

from chiasm.routing.gated_cross_attention import GatedCrossAttentionBlock
from chiasm.sequence.cross_attended import CrossAttended

WIDTH, HEADS = 8, 2
# Documents of each row by position (-1 = padding), and where pictures stand in it with their numbers of tokens.
PACKED = {
    "one picture a row": ([[0] * 5, [0] * 5], [[(1, 3)], [(2, 3)]]),
    "one picture for all to see": ([[0] * 4], [[(0, 3)]]),
    "none in a row": ([[0] * 5, [0] * 5], [[], [(2, 3)]]),
    "none in the last row": ([[0] * 5, [0] * 5], [[(0, 2)], []]),
    "none at all": ([[0] * 3, [0, 1, 1]], [[], []]),
    "many documents": ([[0, 0, 0, 1, 1, 1, 2, 2, -1]], [[(1, 2), (2, 3), (5, 1)]]),
    "rows of unlike documents": (
        [[0, 0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 1, 1, -1], [0, 0, 0, 0, 0, 0, 0]],
        [[(1, 2), (3, 2), (5, 2)], [(0, 1), (3, 2)], [(2, 1), (3, 2), (6, 3)]],
    ),
    "rows of as many tokens": ([[0, 0, 0, 1], [0, 1, 1, 1]], [[(1, 2), (3, 2)], [(0, 1), (2, 3)]]),
}


def looked_at(documents, pictures, row, position, every):
    """Numbers, through all rows, of the pictures that a position looks at, and whether it averages them."""
    before_row = sum(len(each) for each in pictures[:row])
    own = [
        (before_row + i, place)
        for i, (place, _) in enumerate(pictures[row])
        if documents[row][place] == documents[row][position] != -1
    ]
    seen = [number for number, place in own if place <= position]
    if not every:
        return seen[-1:], False
    return (seen, False) if seen else ([number for number, _ in own], True)


@pytest.mark.parametrize("every", [False, True])
@pytest.mark.parametrize(("documents", "pictures"), PACKED.values(), ids=PACKED.keys())
def test_each_position_attends_to_its_own_pictures(documents, pictures, every):
    torch.manual_seed(0)
    rows, length = len(documents), len(documents[0])
    lengths = [count for row in pictures for _, count in row]
    places = [row * length + place for row, each in enumerate(pictures) for place, _ in each]
    tokens = torch.randn(sum(lengths), 6)
    images = CrossAttended.of(
        tokens, lengths, torch.tensor(places, dtype=torch.long), torch.tensor(documents)
    )
    block, x = GatedCrossAttentionBlock(WIDTH, 6, HEADS, 4, 16, every), torch.randn(rows, length, WIDTH)
    ours, queries = block.attend(x, images), block.query(block.norm(x))
    owners = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths, dtype=torch.long))
    assert images.owners.tolist() == owners.tolist()
    for row in range(rows):
        for position in range(length):
            numbers, averages = looked_at(documents, pictures, row, position, every)
            own = tokens[torch.isin(owners, torch.tensor(numbers, dtype=torch.long))]
            query = queries[row, position] * (not averages)
            heads = [
                (key @ query / 4**0.5).softmax(0) @ value
                for query, key, value in zip(
                    query.split(4), block.key(own).split(4, 1), block.value(own).split(4, 1), strict=True
                )
            ]
            expected = block.output(torch.cat(heads))
            torch.testing.assert_close(ours[row, position], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("every", [False, True])
def test_rows_of_as_many_tokens_are_one_call_and_others_one_each(every):
    def calls(name):
        documents, pictures = PACKED[name]
        lengths = [count for row in pictures for _, count in row]
        places = [row * len(documents[0]) + place for row, each in enumerate(pictures) for place, _ in each]
        images = CrossAttended.of(
            torch.zeros(sum(lengths), 6), lengths, torch.tensor(places), torch.tensor(documents)
        )
        visible = images.of_all if every else images.of_latest
        return [(rows.stop - rows.start, mask is None) for rows, _, mask in visible.groups]

    assert calls("rows of as many tokens") == [(2, False)]
    assert calls("rows of unlike documents") == [(1, False)] * 3
    assert calls("one picture for all to see") == [(1, True)]  # nothing is hidden, so there is no mask


def test_what_is_written_behind_a_prompt_sees_what_its_end_sees():
    documents = torch.zeros(2, 4, dtype=torch.long)
    images = CrossAttended.of(torch.randn(5, 6), [2, 1, 2], torch.tensor([0, 2, 5]), documents)
    behind = images.continued(3)
    for name in ("first", "latest", "end"):
        assert torch.equal(getattr(behind, name), getattr(images, name)[:, -1:].expand(2, 3))
    assert behind.tokens is images.tokens
    assert behind.owners is images.owners


@pytest.mark.parametrize("every", [False, True])
def test_rows_that_go_on_see_the_same_images_joined_and_selected(every):
    """A row with two images, one with none at all, two rows with one image each."""
    torch.manual_seed(0)
    block, x = GatedCrossAttentionBlock(WIDTH, 6, HEADS, 4, 16, every), torch.randn(4, 2, WIDTH)
    one = CrossAttended.of(torch.randn(5, 6), [2, 3], torch.tensor([1, 3]), torch.zeros(1, 4).long())
    two = CrossAttended.of(torch.randn(4, 6), [1, 3], torch.tensor([0, 4]), torch.zeros(2, 3).long())
    expected = [block.attend(x[:1], one.continued(2)), block.attend(x[2:], two.continued(2))]
    expected.insert(1, block.output(torch.zeros(1, 2, 8)))
    joined = CrossAttended.join([one, None, two], [1, 1, 2])
    together = block.attend(x, joined.continued(2))
    torch.testing.assert_close(together, torch.cat(expected))
    rows = torch.tensor([3, 0, 3])
    selected = joined.select(rows)
    assert len(selected.tokens) == 3 + 5 + 3  # no others are held any longer
    torch.testing.assert_close(block.attend(x[rows], selected.continued(2)), together[rows])
    assert CrossAttended.join([None, None], [1, 2]) is None
