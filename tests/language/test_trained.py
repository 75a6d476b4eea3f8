"""Text tokenizers trained on a corpus: once, and again where the corpus is another or the cache is broken."""

from chiasm.data.corpus import Corpus
from chiasm.data.world import World
from chiasm.language.text import TextTokenizer
from chiasm.storage.cache import default_folder


class Read(World):
    """A world that counts how many of its groups are read."""

    reads = 0

    def __getitem__(self, index):
        self.reads += 1
        return super().__getitem__(index)


def world(seed):
    return Read(emoji=8, objects=(1, 2), scenes=5, tasks={"caption": 1}, seed=seed)


def test_a_corpus_is_read_once(tmp_path, monkeypatch):
    monkeypatch.setenv("CHIASM_CACHE", str(tmp_path))
    source = world(0)
    first = TextTokenizer.train(Corpus([source]), 300)
    again = TextTokenizer.train(Corpus([source]), 300)
    assert source.reads == 5
    assert again.inner.get_vocab() == first.inner.get_vocab()

    other = world(1)
    TextTokenizer.train(Corpus([other]), 300)
    TextTokenizer.train(Corpus([other]), 310)
    assert other.reads == 10  # another corpus, and another size, are trained anew

    for path in (default_folder() / "tokenizers").iterdir():
        path.write_text("{")
    mended = TextTokenizer.train(Corpus([source]), 300)
    assert source.reads == 10
    assert mended.inner.get_vocab() == first.inner.get_vocab()
