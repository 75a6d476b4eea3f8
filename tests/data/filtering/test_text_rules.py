"""OmniCorpus's rules: what they cut from paragraphs, and which documents they drop."""

import pytest

from chiasm.data.filtering.document import cut_paragraphs, dropped_by, filtered, plain_text
from chiasm.data.filtering.paragraphs import RULES
from chiasm.data.filtering.tree import Element, parse, write
from chiasm.data.filtering.words import flagged_ratio, is_unfinished, treebank_words
from chiasm.errors import DataError

WHOLE = "The old harbour of the town was rebuilt after the storm, and many of the families returned to it."
LONG = " ".join([WHOLE] * 4)


def doc(*paragraphs):
    return parse(
        "<doc><main>" + "".join(f"<p>{each}</p>" for each in paragraphs) + "</main><comments/></doc>"
    )


def left(name, *paragraphs):
    return [each.text for each in RULES[name](doc(*paragraphs)).all("p")]


@pytest.mark.parametrize(
    ("rule", "goes", "stays"),
    [
        ("filter_download_links", "For details on the price see the page", "The price is low"),
        ("filter_source_references", "Special thanks to all our friends", "We give special thanks to all"),
        ("filter_source_references", "It was so (Smith, 2019)", "It was so (Smith, 2019) then"),
        ("social_media_counter_discard", "3 likes", "He likes it"),
        ("short_discard", "Sign up here", "To enter one has to sign up at the desk of the hall before noon"),
        ("porn_discard", "free porn", "free bread"),
        ("header_footer_discard", "Contact Information", "Where we are to be found"),
        ("readme_discard", "There is a lot to be told, read more", "I want to read more. There is a book."),
        ("advertisement_discard", "Advertisement", "An advertisement"),
        ("re_short_long_paragraphs", "two words", "now three words"),
        ("tooshort_discard", "these are four words", "these are now five words"),
        ("social_media_discard", "All comments:", "All comments were read"),
        ("phonenum_author_time_discard", "Call 818-393-6215 for tickets", "Call us for tickets"),
        ("phonenum_author_time_discard", "By John Smith", "By and by John Smith went home to his wife and child"),
        ("cite_discard", "mail someone@example.com", "mail someone"),
    ],
)  # fmt: skip
def test_a_rule_takes_one_paragraph_and_leaves_the_other(rule, goes, stays):
    assert left(rule, WHOLE, goes, stays, WHOLE) == [WHOLE, stays, WHOLE]


def test_a_document_begins_and_ends_with_whole_sentences():
    root = parse(f"<doc><main><p>Privacy Policy</p><p>{WHOLE}<lb/>It ends here. And then</p></main></doc>")
    texts = [each.words for each in RULES["fulltext_discard"](root).all("p", "lb")]
    assert texts == ["", WHOLE, "It ends here."]


def test_an_image_protects_what_stands_near_it():
    # on one line of a file, the original counts pieces: the first eleven
    near = parse('<doc><main><graphic src="a.jpg"/><p>SHOP NOW</p></main></doc>')
    assert write(RULES["uppercase_discard"](near)) == write(near)
    assert left("uppercase_discard", "SHOP NOW", WHOLE) == [WHOLE]


def test_useless_captions_and_images_without_files_go():
    root = parse('<doc><main><p>Image source: the web</p><graphic src="a.jpg"/><graphic/></main></doc>')
    assert write(RULES["image_caption_discard"](root)) == '<doc><main><graphic src="a.jpg"/></main></doc>'


def test_a_list_of_references_goes_with_its_numbers_in_the_text():
    text = ["It was so [1] and so.", "[1] A book about it."]
    assert left("cite_discard", *text) == ["It was so and so."]


def test_what_was_taken_out_stays_a_parent_of_what_is_in_it():
    root = parse("<doc><p>a<lb/>b</p>tail<p>c</p></doc>")
    first = root.children[0]
    assert first.remove()
    assert not first.remove()
    assert first.children[0].parent is first
    assert write(root) == "<doc><p>c</p></doc>"


def test_what_is_read_is_written_again():
    text = '<doc a="&lt;&quot;&#10;"><p>caf&#233; &amp; x</p>tail<lb/></doc>'
    assert write(parse(text)) == text
    element = Element("p", text="")
    assert write(element) == "<p></p>"


@pytest.mark.parametrize(
    "text", ["<doc>", "", "<a/><b/>", '<!DOCTYPE d [<!ENTITY e "x">]><d>&e;</d>', "<a>" * 300]
)
def test_what_is_no_xml_is_a_sentence(text):
    with pytest.raises(DataError, match=r"no XML|entity|within one another"):
        parse(text)


@pytest.mark.parametrize(
    ("paragraphs", "rule"),
    [
        ([LONG], None),
        (["A short one."], "words"),
        (["a b c d e f g h i j " * 6], "word length"),
        (["1234 5678 " * 30 + WHOLE], "words without letters"),
        (["Many old harbours were rebuilt after storms for families " * 8], "stop words"),
        ([LONG + " porn porn"], "flagged words"),
        (["The people of the village waited."] * 12, "short paragraphs"),
    ],
)
def test_a_document_is_dropped_by_the_first_rule_that_it_breaks(paragraphs, rule):
    assert dropped_by(doc(*paragraphs)) == rule


def test_many_images_need_many_words():
    assert dropped_by(doc(LONG), images=2) is None
    assert dropped_by(doc(LONG), images=3) == "words per image"


def test_the_rules_pass_several_times():
    root, dropped = filtered(doc(LONG, "Share", WHOLE))
    assert dropped is None
    assert [each.text for each in root.all("p")] == [LONG, WHOLE]
    assert plain_text(cut_paragraphs(doc(LONG))) == LONG


def test_words_are_those_of_the_treebank():
    assert treebank_words("They're here; don't go (yet), Mr. Smith.") == [
        "They", "'re", "here", ";", "do", "n't", "go", "(", "yet", ")", ",", "Mr.", "Smith", ".",
    ]  # fmt: skip
    assert flagged_ratio("xxx, and more!") == pytest.approx(1 / 3)
    assert is_unfinished("It goes on. Click here")
    assert not is_unfinished("Click here to see. It ends.")
