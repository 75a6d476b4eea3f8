"""The words of pages and of questions about them, in English and in Chinese."""

from __future__ import annotations

from typing import Literal

from chiasm.data.world.dice import Dice

Language = Literal["en", "zh", "mixed"]
Pair = tuple[str, str]  # in English, in Chinese

MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
          "November", "December")  # fmt: skip
PLACES: tuple[Pair, ...] = (
    ("Oslo", "奥斯陆"), ("Lima", "利马"), ("Cairo", "开罗"), ("Delhi", "德里"), ("Paris", "巴黎"),
    ("Quito", "基多"), ("Seoul", "首尔"), ("Tunis", "突尼斯"), ("Perth", "珀斯"), ("Vienna", "维也纳"),
    ("Dakar", "达喀尔"), ("Riga", "里加"),
)  # fmt: skip
TERMS: dict[str, Pair] = {
    "name": ("name", "名称"), "price": ("price", "价格"), "stock": ("stock", "库存"), "weight": ("weight", "重量"),
    "age": ("age", "年龄"), "width": ("width", "宽度"), "sold": ("sold", "销量"),
    "count": ("count", "数量"), "item": ("item", "商品"), "month": ("month", "月份"),
    "date": ("Date", "日期"), "total": ("Total", "合计"),
    "net weight": ("Net weight", "净重"), "best before": ("Best before", "保质期至"), "batch": ("Batch", "批号"),
    "label price": ("Price", "售价"), "made in": ("Made in", "产地"), "store at": ("Store at", "储存温度"),
    "animal": ("Article", "物品"), "city": ("City", "城市"), "number": ("Number", "编号"), "years": ("Age", "岁数"),
    "telephone": ("Telephone", "电话"), "payment": ("Payment", "付款方式"), "delivery": ("Delivery", "取货方式"),
    "size": ("Size", "尺寸"), "newsletter": ("Newsletter", "订阅"),
}  # fmt: skip
COLUMNS = ("price", "stock", "weight", "age", "width", "sold")
CHOICES: dict[str, tuple[Pair, ...]] = {
    "payment": (("cash", "现金"), ("card", "刷卡"), ("transfer", "转账")),
    "delivery": (("collect", "自取"), ("post", "邮寄")),
    "size": (("small", "小号"), ("medium", "中号"), ("large", "大号")),
    "newsletter": (("yes", "是"), ("no", "否")),
}
FORMS: tuple[Pair, ...] = (
    ("Order form", "订购单"), ("Repair form", "维修单"), ("Visitor form", "访客登记表"), ("Return form", "退货单"),
)  # fmt: skip
# What a sentence of a letter says, and the question about it.
SENTENCES: tuple[tuple[Pair, Pair], ...] = (
    (("The {name} lives in {place}.", "{name}住在{place}。"), ("Where does the {name} live?", "{name}住在哪里?")),
    (("The {name} was seen in {place}.", "有人在{place}见过{name}。"),
     ("Where was the {name} seen?", "有人在哪里见过{name}?")),
    (("The {name} came from {place}.", "{name}来自{place}。"),
     ("Where did the {name} come from?", "{name}来自哪里?")),
    (("The {name} goes to {place}.", "{name}要去{place}。"), ("Where does the {name} go?", "{name}要去哪里?")),
)  # fmt: skip
TEXTS: dict[str, Pair] = {
    "market": ("{place} market", "{place}市场"),
    "news": ("News from {place}", "{place}来信"),
    "degrees": ("{degrees} degrees", "{degrees}度"),
}
QUESTIONS: dict[str, Pair] = {
    "date?": ("What is the date?", "日期是哪天?"),
    "total?": ("What is the total?", "合计是多少?"),
    "price?": ("How much is the {name}?", "{name}多少钱?"),
    "quantity?": ("How many of the {name} were bought?", "买了多少{name}?"),
    "cell?": ("What is the {column} of the {name}?", "{name}的{column}是多少?"),
    "row?": ("What has the {column} {value}?", "什么的{column}是{value}?"),
    "most?": ("Which has the highest {column}?", "哪个的{column}最高?"),
    "least?": ("Which has the lowest {column}?", "哪个的{column}最低?"),
    "month?": ("What is the {column} in {month}?", "{month}的{column}是多少?"),
    "most month?": ("In which month is the {column} highest?", "哪个月的{column}最高?"),
    "least month?": ("In which month is the {column} lowest?", "哪个月的{column}最低?"),
    "product?": ("What is the product?", "这是什么产品?"),
    "title?": ("What is the title?", "标题是什么?"),
    "net weight?": ("What is the net weight?", "净重是多少?"),
    "best before?": ("What is it best before?", "保质期到什么时候?"),
    "batch?": ("What is the batch?", "批号是什么?"),
    "label price?": ("What is the price?", "售价是多少?"),
    "made in?": ("Where was it made?", "产地是哪里?"),
    "store at?": ("At how many degrees is it stored?", "储存温度是多少度?"),
    "field?": ("What does the form say as {field}?", "表上的{field}填的是什么?"),
    "choice?": ("What is chosen as {field}?", "{field}选的是什么?"),
    "on page": ("On page {page}: {question}", "第{page}页:{question}"),
    "page of?": ("On which page does it say \"{text}\"?", "“{text}”写在第几页?"),
    "read": ("Read the page.", "读出这一页。"),
    "markdown": ("Write the page as Markdown.", "把这一页写成 Markdown。"),
    "json": ("Write the page as JSON.", "把这一页写成 JSON。"),
    "page number": ("Page {page}:", "第{page}页:"),
}  # fmt: skip


class PageWords:
    """The words of one page.

    A mixed page has its fixed words in both languages and each of the others in either; questions about it are all
    in one. dice: chooses on mixed pages.
    """

    def __init__(self, language: Language, dice: Dice):
        self.language, self._dice = language, dice
        self._asked = self.side()

    def side(self) -> int:
        """0 for English, 1 for Chinese; on a mixed page, either."""
        return self._dice.below(2) if self.language == "mixed" else int(self.language == "zh")

    def either(self, pair: Pair) -> str:
        return pair[self.side()]

    def term(self, key: str) -> str:
        """As it is printed."""
        english, chinese = TERMS[key]
        return f"{chinese} {english}" if self.language == "mixed" else self.either((english, chinese))

    def word(self, key: str) -> str:
        """As questions name it."""
        return TERMS[key][self._asked]

    def say(self, key: str, **slots: object) -> str:
        """A text of the page."""
        return self.either(TEXTS[key]).format(**slots)

    def ask(self, key: str, **slots: object) -> str:
        """A question or an instruction."""
        return QUESTIONS[key][self._asked].format(**slots)

    def date(self, day: int, month: int, year: int) -> str:
        return self.either((f"{day} {MONTHS[month]} {year}", f"{year}年{month + 1}月{day}日"))

    def month_of(self, month: int, year: int) -> str:
        return self.either((f"{MONTHS[month]} {year}", f"{year}年{month + 1}月"))


def all_letters(language: Language) -> str:
    """Every letter that pages of a language have, beside digits and those of names."""
    pairs = [
        *PLACES,
        *TERMS.values(),
        *FORMS,
        *TEXTS.values(),
        *(p for each in CHOICES.values() for p in each),
    ]
    pairs += [sentence for sentence, _ in SENTENCES]
    sides = {"en": (0,), "zh": (1,), "mixed": (0, 1)}[language]
    return "".join(pair[side] for pair in pairs for side in sides) + ("" if language == "en" else "年月日")
