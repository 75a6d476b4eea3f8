"""How a name in a recipe becomes a part: options and building.

A slot is an abstract class (`class Connector(Part, slot="connector")`); a part is a subclass with a name
(`class MLP(Connector, name="mlp")`). A part's options are the keyword-only arguments of its constructor and
are defined nowhere else; what the builder wires, such as widths, is positional.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Union, get_args, get_origin

from pydantic import TypeAdapter, ValidationError

from chiasm.errors import ChiasmError, RecipeError, excerpt, nearest, quoted
from chiasm.parts.plugins import failure, is_own
from chiasm.parts.registry import Registry, place
from chiasm.parts.signature import (
    Option,
    forms,
    has_stray_boolean,
    signature_options,
    without_bounds,
    wrong_length,
)
from chiasm.storage.safe_yaml import check_plain

if TYPE_CHECKING:
    from torch import nn

# The slots in the order in which data passes through them, and the package that holds each one's parts.
SLOTS = {
    "data": "chiasm.data",
    "views": "chiasm.views",
    "encoder": "chiasm.encoders",
    "connector": "chiasm.connectors",
    "language": "chiasm.language",
    "routing": "chiasm.routing",
    "image_tokenizer": "chiasm.tokenizers",
    "order": "chiasm.heads.orders",
    "alphabet": "chiasm.heads.alphabets",
    "mask_head": "chiasm.heads.masks",
    "image_decoder": "chiasm.decoders",
    "modality": "chiasm.modalities",
    "denoiser": "chiasm.decoders.denoisers",
    "conditioner": "chiasm.decoders.conditioners",
    "scheduler": "chiasm.decoders.schedulers",
    "objective": "chiasm.objectives",
    "critic": "chiasm.critics",
    "quantizer": "chiasm.tokenizers.quantizers",
    "task": "chiasm.evaluation.tasks",
}

_registries: dict[str, Registry[type[Part]]] = {slot: Registry(slot, at) for slot, at in SLOTS.items()}


class Part:
    """Base of everything a recipe can name. Subclass a slot's interface with `name=...` to register one."""

    slot: ClassVar[str] = ""
    name: ClassVar[str] = ""
    spec: dict[str, Any]  # what `build` made the part from, every option spelled out

    def __init_subclass__(cls, *, slot: str | None = None, name: str | None = None, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        if slot is not None:
            cls.slot = slot
        if name is not None:
            _check_whole(cls, name)
            _registry(cls.slot).add(name, cls)
            cls.name = name

    def standalone(self) -> dict[str, Any]:
        """Options that rebuild the part's structure without the checkpoint it was made from.

        They are saved with a trained model, so that loading it needs nothing but its own folder.
        """
        return {}

    def learners(self) -> Mapping[str, nn.Module]:
        """What a stage that trains it changes, by what the names of its parameters begin with; "" = all of it."""
        from torch import nn

        return {"": self} if isinstance(self, nn.Module) else {}

    @classmethod
    def example(cls) -> dict[str, Any]:
        """Options of a small one, which the tests of all parts build; without any, the defaults are small.

        It stands in a model of width 32 whose images have 32 x 32 pixels.
        """
        return {}

    @classmethod
    def check_together(cls, options: Mapping[str, Any]) -> None:
        """Raise ChiasmError for options that do not fit each other, as far as they alone tell."""

    @classmethod
    def held_wiring(cls, option: str, wiring: Sequence[Any], built: Mapping[str, Any]) -> Sequence[Any]:
        """Positional arguments of the part that it holds as `option`.

        wiring: its own positional arguments. built: values of the options before this one, parts included.
        """
        return ()

    @classmethod
    def can_hold(cls, held: type[Part]) -> bool:
        """Whether a part of a kind that one of its options names fits it."""
        return True

    @classmethod
    def example_neighbours(cls) -> dict[str, dict[str, Any]]:
        """By slot, the parts that stand beside the example where not any other will do."""
        return {}


def names(slot: str) -> list[str]:
    """The names of all parts of a slot."""
    return list(_registry(slot).items())


def lookup(slot: str, name: str) -> type[Part]:
    """The part class that `name` stands for in `slot`; raises RecipeError with the nearest name."""
    return _registry(slot).lookup(name)


def options(part: type[Part]) -> dict[str, Option]:
    """A part's options by name, in the order of its signature."""
    return dict(signature_options(part))  # type: ignore[arg-type]


def check(slot: str, spec: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Validate `{type: NAME, option: value, ...}` and return it with every option's value spelled out.

    `where` is the dotted place in the recipe, used in messages. Raises RecipeError.
    """
    if not isinstance(spec, Mapping) or "type" not in spec:
        raise RecipeError(
            f"{where} must be a mapping with a 'type', as in {{type: {_example(slot)}}}; got {quoted(spec)}"
        )
    if not isinstance(spec["type"], str):
        raise RecipeError(f"{where}.type must be a name; got {quoted(spec['type'])}")
    part = lookup(slot, spec["type"])
    accepted = options(part)
    resolved: dict[str, Any] = {"type": spec["type"]}
    for key in spec:
        if key != "type" and key not in accepted:
            place = excerpt(f"{where}.{key}", 200)
            raise RecipeError(
                f"{slot} {part.name!r} has no option {quoted(key)}{nearest(str(key), accepted)} (at {place})"
            )
    for option in accepted.values():
        if option.name in spec:
            resolved[option.name] = _check_value(part, option, spec[option.name], f"{where}.{option.name}")
        elif option.required:
            raise RecipeError(
                f"{slot} {part.name!r} needs the option {option.name!r} ({option.type}) at {where}"
            )
        else:
            resolved[option.name] = option.default
    try:
        part.check_together(resolved)
    except ChiasmError as error:
        raise RecipeError(f"{where}: {error}") from None
    return resolved


def build(
    slot: str,
    spec: Mapping[str, Any],
    *wiring: Any,
    where: str | None = None,
    inner: Mapping[str, Sequence[Any]] | None = None,
) -> Any:
    """Construct the part that `spec` describes.

    wiring: its positional arguments (widths and so on). inner: those of the parts that it holds, by option, where
        `Part.held_wiring` does not say.
    Raises RecipeError as `check` does, and ChiasmError for a part of the user's own whose constructor fails.
    """
    resolved = check(slot, spec, where or slot)
    part = lookup(slot, resolved["type"])
    built: dict[str, Any] = {}
    for key, option in options(part).items():
        arguments = (inner or {}).get(key) or part.held_wiring(key, wiring, built)
        built[key] = _build_nested(option.annotation, resolved[key], f"{where or slot}.{key}", arguments)
    try:
        instance = part(*wiring, **built)
    except (Exception, SystemExit) as error:
        if isinstance(error, ChiasmError) or not is_own(part):
            raise
        raise ChiasmError(f"{slot} {part.name!r} cannot be built: {failure(error, part)}") from error
    instance.spec = resolved
    return instance


def _check_value(owner: type[Part], option: Option, value: Any, where: str) -> Any:
    if slot := _nested_slot(option.annotation):
        allowed = [without_bounds(form) for form in forms(option.annotation)]
        if value is None and types.NoneType in allowed:
            return None
        lists = [get_origin(form) is list for form in allowed if form is not types.NoneType]
        if isinstance(value, list) and any(lists):
            held = [_check_held(owner, option, item, f"{where}.{i}") for i, item in enumerate(value)]
            _validated(option.items_adapter, option, value, where)
            return held
        if all(lists):
            raise RecipeError(f"{where} must be a list of parts of the slot {slot}; got {quoted(value)}")
        return _check_held(owner, option, value, where)
    check_plain(value, where)
    valid = _validated(option.adapter, option, value, where)
    if has_stray_boolean(option.annotation, value):
        raise RecipeError(f"{where} is {quoted(value)}: a boolean is no number (expected {option.type})")
    return valid


def _validated(adapter: TypeAdapter[Any], option: Option, value: Any, where: str) -> Any:
    """The value as an adapter has it; raises RecipeError naming the option."""
    try:
        return adapter.validate_python(value, strict=None)
    except ValidationError as error:
        problems = error.errors()
        complaint = wrong_length(problems) or problems[0]["msg"].lower()
        raise RecipeError(f"{where} is {quoted(value)}: {complaint} (expected {option.type})") from None


def _check_held(owner: type[Part], option: Option, spec: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Validate a part that another holds; raises RecipeError for one of a kind that the option does not take."""
    slot = _nested_slot(option.annotation)
    assert slot is not None
    resolved = check(slot, spec, where)
    held = lookup(slot, resolved["type"])
    if not takes(owner, option.name, held):
        fitting = [name for name in names(slot) if takes(owner, option.name, lookup(slot, name))]
        owners = [name for name in names(owner.slot) if takes(lookup(owner.slot, name), option.name, held)]
        instead = f", or for {slot} {held.name!r} use {owner.slot} {_either(owners)}" if owners else ""
        raise RecipeError(
            f"{owner.slot} {owner.name!r} takes no {slot} {held.name!r}: use {slot} {_either(fitting)}{instead} "
            f"(at {where})"
        )
    return resolved


def takes(owner: type[Part], option: str, held: type[Part]) -> bool:
    """Whether a part's option takes a part of this class: its annotation names the kind, and the two fit."""
    accepted = options(owner).get(option)
    kinds = () if accepted is None else tuple(_part_kinds(accepted.annotation))
    return issubclass(held, kinds) and owner.can_hold(held)


def _build_nested(annotation: Any, value: Any, where: str, wiring: Sequence[Any]) -> Any:
    nested = _nested_slot(annotation)
    if nested is None or value is None:
        return value
    if isinstance(value, list):
        return [build(nested, item, *wiring, where=f"{where}.{i}") for i, item in enumerate(value)]
    return build(nested, value, *wiring, where=where)


def _nested_slot(annotation: Any) -> str | None:
    """The slot whose parts an option takes, else None."""
    return next((kind.slot for kind in _part_kinds(annotation)), None)


def _part_kinds(annotation: Any) -> list[type[Part]]:
    """The classes of part that an annotation names: `Encoder`, `Encoder | None`, `list[Encoder]`, `A | B`.

    Bounds of a list, as in `Annotated[list[Encoder], Field(min_length=2)]`, are of the number of parts.
    """
    annotation = without_bounds(annotation)
    if inspect.isclass(annotation) and issubclass(annotation, Part):
        return [annotation]
    if get_origin(annotation) in (list, types.UnionType, Union):
        return [kind for each in get_args(annotation) for kind in _part_kinds(each)]
    return []


def _check_whole(part: type[Part], name: str) -> None:
    """Raise RecipeError for a part that does not define what its slot asks of each."""
    asked = (key for each in part.__mro__ if issubclass(each, Part) for key in vars(each))
    missing = [
        key
        for key in dict.fromkeys(asked)
        if getattr(getattr(part, key, None), "__isabstractmethod__", False)
    ]
    if missing:
        raise RecipeError(f"{part.slot} {name!r} does not define {', '.join(missing)}: {place(part)}")


def _registry(slot: str) -> Registry[type[Part]]:
    if slot not in _registries:
        raise RecipeError(f"there is no slot {quoted(slot)}{nearest(slot, SLOTS)}")
    return _registries[slot]


def _either(names: Sequence[str]) -> str:
    *first, last = map(repr, names) if names else ["none"]
    return f"{', '.join(first)} or {last}" if first else last


def _example(slot: str) -> str:
    return next(iter(names(slot)), "NAME")
