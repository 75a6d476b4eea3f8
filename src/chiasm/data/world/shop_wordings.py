"""How customers of the shop ask, and what its tools and its assistant say, in English and Chinese."""

from __future__ import annotations

Wordings = dict[str, dict[str, dict[str, list[str]]]]  # by language, by service, of training or held out

# {one}: a product that is named. {cell}: the place of one that is shown.
ASKED: Wordings = {
    "en": {
        "price": {
            "train": [
                "What does the {one} cost?",
                "How much is the {one}?",
                "The price of the {one}, please.",
                "I would like the {one}. What is its price?",
            ],
            "held_out": ["Tell me the price of the {one}.", "And the {one}, what does it cost?"],
        },
        "size": {
            "train": [
                "How large is the {one}?",
                "Which size does the {one} have?",
                "The size of the {one}, please.",
                "I would like the {one}. What is its size?",
            ],
            "held_out": ["Tell me the size of the {one}.", "And the {one}, how large is it?"],
        },
        "find": {
            "train": [
                "Do you sell the {one}?",
                "Is there the {one} in your shop?",
                "I am looking for the {one}.",
                "Have you got the {one}?",
            ],
            "held_out": ["Can I buy the {one} here?", "And the {one}, do you have it?"],
        },
    },
    "zh": {
        "price": {
            "train": [
                "{one}多少钱？",
                "{one}的价格是多少？",
                "请问{one}卖多少钱？",
                "我想买{one}，要多少钱？",
            ],
            "held_out": ["告诉我{one}的价格。", "那{one}多少钱呢？"],
        },
        "size": {
            "train": [
                "{one}有多大？",
                "{one}的尺寸是多少？",
                "请问{one}有多大？",
                "我想买{one}，尺寸是多少？",
            ],
            "held_out": ["告诉我{one}的尺寸。", "那{one}有多大呢？"],
        },
        "find": {
            "train": ["你们卖{one}吗？", "店里有{one}吗？", "我在找{one}。", "请问有{one}吗？"],
            "held_out": ["这里卖{one}吗？", "那{one}呢，有吗？"],
        },
    },
}
SHOWN: Wordings = {
    "en": {
        "price": {
            "train": [
                "What does the product at the {cell} cost?",
                "How much is the one at the {cell}?",
                "The price of what is at the {cell}, please.",
                "I would like what is at the {cell}. What is its price?",
            ],
            "held_out": [
                "Tell me the price of the one at the {cell}.",
                "And the one at the {cell}, what does it cost?",
            ],
        },
        "size": {
            "train": [
                "How large is the product at the {cell}?",
                "Which size does the one at the {cell} have?",
                "The size of what is at the {cell}, please.",
                "I would like what is at the {cell}. What is its size?",
            ],
            "held_out": [
                "Tell me the size of the one at the {cell}.",
                "And the one at the {cell}, how large is it?",
            ],
        },
    },
    "zh": {
        "price": {
            "train": ["{cell}的商品多少钱？", "{cell}那个的价格是多少？", "请问{cell}的商品卖多少钱？"],
            "held_out": ["告诉我{cell}的商品的价格。", "那{cell}的商品多少钱呢？"],
        },
        "size": {
            "train": ["{cell}的商品有多大？", "{cell}那个的尺寸是多少？", "请问{cell}的商品有多大？"],
            "held_out": ["告诉我{cell}的商品的尺寸。", "那{cell}的商品有多大呢？"],
        },
    },
}
WORDS: dict[str, dict[str, str]] = {
    "en": {
        "coins": "{} coins",
        "sizes": "small medium large",
        "stock": "in stock",
        "missing": "not sold",
        "price_answer": "The {one} costs {given}.",
        "size_answer": "The {one} is {given}.",
        "find_answer": "Yes, we have the {one}.",
        "missing_answer": "No, we do not sell the {one}.",
    },
    "zh": {
        "coins": "{}金币",
        "sizes": "小号 中号 大号",
        "stock": "有货",
        "missing": "没有",
        "price_answer": "{one}卖{given}。",
        "size_answer": "{one}是{given}。",
        "find_answer": "有，我们卖{one}。",
        "missing_answer": "没有，我们不卖{one}。",
    },
}
