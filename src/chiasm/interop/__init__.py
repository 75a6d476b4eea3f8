"""Public checkpoint layouts and ours, both ways, and the replay of parity cases through that same code.

    import_checkpoint(source, destination)          a public folder becomes a Chiasm checkpoint
    export_checkpoint(folder, destination, family)  and back: bit for bit where it came from there
    verify(paths)                                   replays parity cases; summary(results) counts them

## How to add a family
A family is one public layout (a project's own; transformers' of the same model is another one). It is one file in
`chiasm/interop/families/`, or anywhere with `--plugin FILE`, and says four things:

    class Honeybee(Family, name="honeybee"):
        looks_for = "config.json with model_type honeybee"           # for "no known layout. Looked for: ..."

        def recognises(self, folder):                                # by small files only
            return folder.config.get("model_type") == "honeybee"

        def model(self, config, keys=()):                            # the recipe's `model` section: parts with
            return {                                                 # configs, no checkpoints
                "views": {"type": "whole", "size": config["vision_config"]["image_size"]},
                "encoder": tower(config["vision_config"], "clip_vision_model", layer=-2),
                "connector": {"type": "c_abstractor", "queries": config["projector"]["num_queries"]},
                "language": causal_config(config["text_config"], "llama"),
            }

        def names(self, config, keys=()):                            # every tensor, both ways
            return NameMap(
                *tower_rules(self.model(config)["encoder"], "vision_model."),
                Rule("abstractor.net.{n}.{rest...}", "connector.blocks.{n}.{rest...}"),
                Rule("attn.{n}.qkv.{w}", ("a.{n}.q.{w}", "a.{n}.k.{w}", "a.{n}.v.{w}"), Split((64, 64, 64))),
                Unused("some.buffer"),                               # kept aside, written back on export
                Rule("language_model.{rest...}", "language.inner.{rest...}"),
            )

Our names are those of the model's state dict: `SLOT.` and the part's own. The first rule that matches a name wins;
`{n}` is a stretch without dots, `{rest...}` any rest. Transforms (`Split`, `Join`, `Permute`, `Reshape`,
`Unsqueeze`, `TableRow`, `Chain`) invert exactly; a new one is a class with `to_ours` and `to_theirs`.
`OwnTensors("encoder.mean")` names tensors of ours that they have not. A tensor without a rule, a tensor missing or
of another shape is an error with the original's name in it. Tied weights may be given once.

Every key of the config is accounted for. What `model`, `names`, `chat_template` or `added_tokens` reads is; what
cannot reach the numbers is listed with its reason; anything else is refused by name when a checkpoint is loaded:

            depth = config["text_config"].only("num_hidden_layers", 2, 4)    # refused by name with other values
            language = plain(config["text_config"])                          # a part takes the config whole

        without_effect = {**TRANSFORMERS, "text_config.attention_dropout": "only in training"}

`config` is a `chiasm.interop.config.Config` there, which remembers what was read.

Optional: `read` (files other than config.json and weights, or a config put together from several), `config`
(`model` reversed: exports what was never imported), `constants` (values of `OwnTensors` from other files of the
folder), `chat_template`, `remark` (which weights were chosen), `write`. What several families share of
transformers' towers is in `chiasm.interop.shapes.towers`.

## How its parity cases are replayed
By functions in the same file, each marked with the system and the beginning of `reference.class`:

    @replays("honeybee", "HoneybeeForConditionalGeneration")
    @torch.no_grad()
    def replay(case):
        model = load(find_family("honeybee"), Original(case.config, case.tensors)).model
        ...
        return {"logits": logits}                                    # every output of the case, by name

`case.config`, `.tensors` (the state dict, generated and shared ones included), `.inputs`, `.arguments` and, for
shapes only, `.outputs`. `load` builds from the config and loads as an import does; a case that holds one part alone
builds that part and calls `load_case(module, case, names, "connector.")` of `chiasm.interop.parity.replay`.
With `@replays(..., without_effect={...})` the keys that it reads itself are accounted for as a family's are.
`model` is a `chiasm.model.Model`, or an `nn.ModuleDict` by slot where there is no language model. Ids and pixels go
through our documents and batches by `chiasm.interop.parity.replay`; pixels that a case holds normalised are given
back to [0, 1] there (`unnormalised`), because our encoders normalise for themselves. Tables are answered, all rows,
by a function marked `@replays_table(system)`. Try: `chiasm verify parity/honeybee`.
"""

from chiasm.interop.convert import import_checkpoint, load, load_named
from chiasm.interop.export import export_checkpoint
from chiasm.interop.family import Family, Folder, Original, all_families, find_family, recognise
from chiasm.interop.parity.verify import Result, replays, replays_table, summary, verify

__all__ = [
    "Family",
    "Folder",
    "Original",
    "Result",
    "all_families",
    "export_checkpoint",
    "find_family",
    "import_checkpoint",
    "load",
    "load_named",
    "recognise",
    "replays",
    "replays_table",
    "summary",
    "verify",
]
