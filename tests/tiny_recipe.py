"""The raw recipe of a model that sees and draws, small enough for a test."""

TINY = {
    "name": "tiny",
    "model": {
        "views": {"type": "whole", "size": 32},
        "encoder": {"type": "patches", "patch_size": 8},
        "connector": {"type": "mlp"},
        "language": {
            "type": "causal",
            "vocabulary": 400,
            "config": {
                "model_type": "llama",
                "hidden_size": 32,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "intermediate_size": 64,
                "max_position_embeddings": 256,
            },
        },
        "image_tokenizer": {
            "type": "vq", "size": 32, "width": 16, "depth": 1, "codebook_size": 16, "code_width": 8, "settle": 1,
        },
        "heads": {"image": {"type": "raster", "alphabet": {"type": "own"}}},
    },
    "data": {
        "world": {"type": "world", "scenes": 40, "emoji": 8, "grid": 2, "objects": [1, 2], "canvas": 32},
        "held-out": {"type": "world", "scenes": 40, "emoji": 8, "grid": 2, "objects": [2, 2], "canvas": 32,
                     "split": "combination"},
    },
    "stages": [
        {"name": "codes", "train": {"image_tokenizer": 1e-3}, "data": {"world": 1.0}, "steps": 4, "rows": 4},
        {
            "name": "joint",
            "train": {"connector": 1e-3, "language": 1e-3, "heads.image": 1e-3},
            "data": {"world": 1.0},
            "steps": 6,
            "rows": 2,
            "length": 128,
        },
    ],
    "checkpoints": {"every": 2},
    "sampling": {"guidance": 1.5, "answer_tokens": 8},
    "evaluation": {"data": "held-out", "questions": 12, "pictures": 4, "text": 6},
}  # fmt: skip
