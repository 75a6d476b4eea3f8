"""Chat templates come with checkpoints: what they may do is bounded."""

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from chiasm.data.sample import Message
from chiasm.errors import DataError
from chiasm.language.causal import Causal
from chiasm.language.template import render
from chiasm.language.templates import PLAIN

MESSAGES = [{"role": "user", "content": "hello"}]
TOO_MUCH = "it does more work than the 100,502 steps that a template may take"
RANGE = "{% for x in range(99999) %}"
END = "{% endfor %}"
HARMLESS = {
    "variables": "{{ bos_token }}{{ messages[0]['content'] }}{% if add_generation_prompt %}A{% endif %}",
    "tools": "{% if tools is not none and tools %}tools{% endif %}{{ documents is none }}",
    "loops": "{% for m in messages %}{{ loop.index ~ loop.last }}{% if loop.first %}"
    "{% continue %}{% endif %}x{% endfor %}",
    "slices": "{% for m in messages[::-1] %}{{ m.content[1:3] }}{% endfor %}{{ messages[1:] | length }}",
    "filters": "{{ messages | map(attribute='content') | join(',') }}{{ ' a ' | trim }}"
    "{{ {'é': [1]} | tojson(indent=2) }}",
    "methods": "{{ 'a,b'.split(',')[-1].upper() }}{{ '{:>5}'.format('a') }}{{ '%03d' % 7 }}"
    "{{ 'a'.replace('a', 'bc') }}",
    "namespace": "{% set ns = namespace(n=0) %}{% for c in 'abc' %}{% set ns.n = ns.n + 1 %}"
    "{% endfor %}{{ ns.n * 2 }}",
    "macros": "{% macro f(x) %}[{{ x }}]{% endmacro %}{{ f('a') ~ f(1) }}{% set x %}y{% endset %}{{ x }}",
    "generation": "{% generation %}{{ messages[0].content }}{% endgeneration %}",
    "blocks": "  {% if true %}\n  x\n  {% endif %}\ny\n",
}
HOSTILE = {
    "nested loops": RANGE + RANGE + RANGE + END + END + END,
    "a loop in a filter": "{% filter upper %}" + RANGE + RANGE + "x" + END + END + "{% endfilter %}",
    "a repeated text": "{{ 'a' * 10 ** 10 }}",
    "a repeated list": "{{ [1] * 10 ** 9 }}",
    "a doubled text": "{% set n = namespace(s='ab') %}" + RANGE + "{% set n.s = n.s ~ n.s %}" + END,
    "a doubled sum": "{% set n = namespace(s='ab') %}" + RANGE + "{% set n.s = n.s + n.s %}" + END,
    "a list of itself": "{% set n = namespace(s=[1]) %}"
    + RANGE
    + "{% set n.s = [n.s, n.s] %}"
    + END
    + "{{ n.s }}",
    "a dict of itself": "{% set n = namespace(s=1) %}" + RANGE + "{% set n.s = {1: n.s, 2: n.s} %}" + END,
    "a squared number": "{% set n = namespace(s=9) %}" + RANGE + "{% set n.s = n.s * n.s %}" + END,
    "a macro of itself": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}"
    "{% endmacro %}{{ f(90) }}",
    "a loop of itself": "{% for a in [1, 1] recursive %}{% if loop.depth < 90 %}{{ loop([1, 1]) }}"
    "{% endif %}{% endfor %}",
    "a replacement": "{{ ('a' * 99999).replace('a', 'b' * 99999) | length }}",
    "a join": "{{ ('b' * 99999).join('a,' * 99999) | length }}",
    "a sum a turn": "{% set l = range(90000) | list %}" + RANGE + "{{ l | sum }}" + END,
    "a slice a turn": "{% set a = 'x' * 90000 %}" + RANGE + "{% set b = a[1:] %}" + END,
    "a search a turn": "{% set a = 'x' * 90000 %}" + RANGE + "{% if 'y' in a %}{% endif %}" + END,
}
REFUSED = {
    "{{ 'a' | center(10 ** 9) }}": "center.1000000000. is more than 100,000",
    "{{ '{:>1000000000}'.format(1) }}": "wider than any chat",
    "{{ '%1000000000d' % 1 }}": "wider than any chat",
    "{{ 2 ** (10 ** 9) }}": "no number of a chat template",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}": "nests deeper",
    "{{ " + "(" * 20000 + "1": "nests deeper",
    "{% include '/etc/passwd' %}": "no loader",
    "{{ ''.__class__.__mro__ }}": "unsafe",
    "{{ messages.append(1) }}": "unsafe",
    "{{ raise_exception('only one turn') }}": "refuses these messages: only one turn",
    "{% if %}": "refuses these messages",
    "x" * 100_001: "has 100,001 characters",
}


@pytest.mark.parametrize("name", HARMLESS)
def test_what_templates_do_is_what_transformers_does(name):
    given = {"bos_token": "<s>"}
    theirs, _ = render_jinja_template(
        [MESSAGES * 2], chat_template=HARMLESS[name], add_generation_prompt=True, **given
    )
    assert render(HARMLESS[name], MESSAGES * 2, prompt=True, **given) == theirs[0]


@pytest.mark.parametrize("name", HOSTILE)
def test_work_without_end_is_a_sentence(name):
    with pytest.raises(DataError, match=TOO_MUCH):
        render(HOSTILE[name], MESSAGES, prompt=True)


@pytest.mark.parametrize("template", REFUSED, ids=[template[:40] for template in REFUSED])
def test_what_no_template_may_do_is_a_sentence(template):
    with pytest.raises(DataError, match=REFUSED[template]):
        render(template, MESSAGES, prompt=True)


def test_a_long_conversation_may_take_more():
    template = "{% for m in messages %}{{ m['role'] ~ m['content'] | trim | upper }}{% endfor %}"
    long = [{"role": "user", "content": "word " * 2000}] * 2000
    assert len(render(template, long, prompt=False)) == 2000 * (4 + 9999)


def test_a_recipe_may_allow_more_work():
    long = "{% for x in range(60000) %}{% endfor %}" * 2
    with pytest.raises(
        DataError, match=f"{TOO_MUCH} .language.template_work of a recipe allows so many times more"
    ):
        render(long, MESSAGES, prompt=True)
    assert render(long, MESSAGES, prompt=True, work=2) == ""
    many = "{# x #}" * 20_000
    with pytest.raises(
        DataError, match=r"has 140,000 characters; at most 100,000 are read .language.template_work"
    ):
        render(many, MESSAGES, prompt=True)
    assert render(many, MESSAGES, prompt=True, work=2) == ""


def test_the_option_reaches_the_template(tmp_path):
    (tmp_path / "long.jinja").write_text("{% for x in range(99999) %}{% endfor %}" * 2 + PLAIN)
    options = {
        "config": {"model_type": "gpt2", "n_embd": 8, "n_layer": 1, "n_head": 1},
        "vocabulary": 300,
        "chat_template": str(tmp_path / "long.jinja"),
    }
    asked = [Message("user", ("hello",))]
    with pytest.raises(DataError, match=r"language\.template_work"):
        Causal(["hello"], **options).tokenizer.tokens(asked, prompt=True)
    assert Causal(["hello"], **options, template_work=4.0).tokenizer.tokens(asked, prompt=True)
