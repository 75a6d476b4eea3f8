"""Chameleon from transformers' layout: the same logits, it chats, and goes back bit for bit."""

import pytest
import torch
from transformers import ChameleonConfig, ChameleonForConditionalGeneration, PreTrainedTokenizerFast

from chiasm.data.documents import document
from chiasm.data.picture_reader import PictureReader
from chiasm.data.sample import Message, Sample
from chiasm.errors import CheckpointError
from chiasm.inference.session import Session
from chiasm.interop import export_checkpoint, import_checkpoint
from chiasm.interop.families.chameleon import BEGIN, END
from chiasm.interop.parity.replay import CasePicture
from chiasm.model.checkpoint import load_model
from chiasm.sequence import WrittenImages
from chiasm.storage.weights import read_tensors
from chiasm.views import Size
from tokenizers import Tokenizer, models, pre_tokenizers

CODES, SIZE = 12, 16
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", BEGIN, END, "<image>", "<reserved08706>"]


class Known(PictureReader):
    """Gives every picture these codes."""

    def __init__(self, contract, codes):
        super().__init__(contract)
        self.known = codes

    def _written(self, slots):
        starts = torch.tensor([start for start, _ in slots])
        return WrittenImages(self.known[: len(slots)], True, starts)


def name_of(code):
    return "IMGIMG" + "".join(chr(ord("A") + int(digit)) for digit in str(code)) + "Z"


def vocabulary():
    """Codes are scattered, and their order is not that of their ids."""
    words = {token: id for id, token in enumerate(SPECIAL)}
    for i, code in enumerate([(5 * code + 3) % CODES for code in range(CODES)]):
        words[name_of(code)] = len(words)
        words[f"w{i}"] = len(words)
    return words


@pytest.fixture(params=[False, True], ids=["7b", "34b"])
def folder(request, tmp_path):
    words = vocabulary()
    vq = {"base_channels": 32, "channel_multiplier": [1, 1], "num_res_blocks": 1, "latent_channels": 8}
    vq |= {"embed_dim": 4, "num_embeddings": CODES, "resolution": SIZE, "attn_type": "none"}
    config = ChameleonConfig(
        vocab_size=len(words), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, vocabulary_map=words, vq_config=vq,
        swin_norm=request.param, bos_token_id=0, eos_token_id=2, pad_token_id=1,
    )  # fmt: skip
    torch.manual_seed(3)
    model = ChameleonForConditionalGeneration(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(tmp_path / "original")
    inner = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>",
        additional_special_tokens=SPECIAL[4:],
    ).save_pretrained(tmp_path / "original")  # fmt: skip
    return tmp_path / "original", model


def test_it_answers_as_transformers_does_and_goes_back_bit_for_bit(folder, tmp_path):
    place, theirs = folder
    ours = load_model(import_checkpoint(place, tmp_path / "ours"))
    assert ours.sees
    pixels = torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    codes = ours.image_tokenizer.encode(pixels)
    words = vocabulary()
    grid = [words[name_of(code)] for code in codes.flatten().tolist()]
    asked = Sample("s", (Message("user", (CasePicture("p", Size(SIZE, SIZE), pixels), " w1 w2")),))
    made = document(ours.contract, asked, prompt=True)
    told = [0, words[BEGIN], *[words["<image>"]] * len(grid), words[END], words["w1"], words["w2"], 7]
    assert [id for id, kind in zip(made.ids, made.kinds, strict=True) if kind == 0] == [
        id for id in told if id != words["<image>"]
    ]
    with torch.no_grad():
        expected = theirs(torch.tensor([told]), pixel_values=2 * pixels - 1).logits[0, -1]
        session = Session(ours, [made], reader=Known(ours.contract, codes))
        logits = ours.text_logits(session.last)[0]
    codes_of_vocabulary = torch.tensor(sorted(words[name_of(code)] for code in range(CODES)))
    assert bool((logits[codes_of_vocabulary] == -torch.inf).all())  # text never holds a code
    kept = torch.ones(len(words), dtype=torch.bool)
    kept[codes_of_vocabulary] = False
    torch.testing.assert_close(logits[kept], expected[kept], rtol=1e-4, atol=1e-4)

    assert isinstance(ours.chat("w1 w2", tokens=4).text, str)
    export_checkpoint(tmp_path / "ours", tmp_path / "back")
    before, after = read_tensors(place), read_tensors(tmp_path / "back")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_vocabulary_without_codes_is_refused(folder, tmp_path):
    place, _ = folder
    config = (place / "config.json").read_text(encoding="utf-8").replace("IMGIMGAZ", "IMAGE")
    (place / "config.json").write_text(config, encoding="utf-8")
    with pytest.raises(CheckpointError, match="does not name every code"):
        import_checkpoint(place, tmp_path / "ours")


def test_the_decoder_comes_from_the_original_s_tokenizer(folder, tmp_path):
    place, _ = folder
    before = load_model(import_checkpoint(place, tmp_path / "without"))
    decoder = {key: torch.full_like(t, 0.1) for key, t in before.image_tokenizer.decoder.state_dict().items()}
    torch.save({"state_dict": {f"decoder.{key}": t for key, t in decoder.items()}}, place / "vqgan.ckpt")
    ours = load_model(import_checkpoint(place, tmp_path / "ours"))
    assert all(torch.equal(t, decoder[key]) for key, t in ours.image_tokenizer.decoder.state_dict().items())
    assert len(ours.generate("w1 w2", guidance=1.5)) == 1
    export_checkpoint(tmp_path / "ours", tmp_path / "back")
    assert read_tensors(tmp_path / "back").keys() == read_tensors(place / "model.safetensors").keys()
