"""Models: layers made of layers, with a summary and weights in files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

from jitgrad.core.errors import user_error
from jitgrad.nn import files
from jitgrad.nn.layer import Layer
from jitgrad.nn.tracking import members
from jitgrad.ops import creation


class Model(Layer):
    """A layer to train. Subclass it, make layers in ``__init__`` and use them in ``call(x, training=...)``.

    >>> import jitgrad as jg
    >>> class Classifier(jg.nn.Model):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.hidden = jg.nn.layers.Dense(8, activation="relu")
    ...         self.out = jg.nn.layers.Dense(3)
    ...     def call(self, x):
    ...         return self.out(self.hidden(x))
    >>> model = Classifier()
    >>> model(jg.ones((2, 4))).shape, model.count_params()
    ((2, 3), 67)
    """

    @property
    def layers(self) -> list[Layer]:
        """The layers that the model holds itself, in the order of their attributes."""
        found = [v for key, value in vars(self).items() if key not in ("_memo", "_added")
                 for _, v in members(key, value) if isinstance(v, Layer)]
        return list({id(v): v for v in found}.values())

    def get_layer(self, name: str | None = None, index: int | None = None) -> Layer:
        """The layer of a name or number; ValueError if there is none."""
        layers = self.layers
        if index is not None and -len(layers) <= index < len(layers):
            return layers[index]
        for layer in layers:
            if layer.name == name:
                return layer
        raise user_error(ValueError, f"get_layer: {self.name!r} has no layer {index if name is None else name!r}; "
                                     f"its layers are {', '.join(layer.name for layer in layers)}")

    def build(self, input_shape: Any) -> None:
        """Make the weights of all layers by calling the model on zeros; None in the shape counts as 1."""
        if not self.built:
            self.built = True
            self(creation.zeros(tuple(1 if n is None else n for n in input_shape)))

    def _build(self, input_shape: Any) -> None:
        if type(self).build is not Model.build:         # the layers build themselves in the call
            self.build(input_shape)
        self.built = True

    # ---- reading ----

    def summary(self, print_fn: Callable[[str], Any] = print) -> None:
        """Print a table of the layers: name and type, shape of the result, number of parameters.

        >>> import jitgrad as jg
        >>> model = Sequential([jg.nn.layers.Dense(2, name="first")], name="small")
        >>> _ = model(jg.ones((1, 3)))
        >>> model.summary()
        Model: small (Sequential)
        Layer          Output shape  Parameters
        first (Dense)  (None, 2)              8
        Parameters: 8, trainable 8, others 0
        """
        rows = [("Layer", "Output shape", "Parameters")]
        for layer in self.layers:
            known = layer.built
            shape = "?" if layer.output_shape is None else str(layer.output_shape)
            rows.append((f"{layer.name} ({type(layer).__name__})", shape,
                         str(layer.count_params()) if known else "not built"))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        print_fn(f"Model: {self.name} ({type(self).__name__})")
        for first, second, third in rows:
            print_fn(f"{first:<{widths[0]}}  {second:<{widths[1]}}  {third:>{widths[2]}}")
        trained = sum(v.size for v in self.trainable_variables)
        others = sum(v.size for v in self.non_trainable_variables)
        print_fn(f"Parameters: {trained + others}, trainable {trained}, others {others}")

    # ---- files ----

    def save_weights(self, path: str | os.PathLike[str], overwrite: bool = True) -> None:
        """Write the weights to one ``.npz`` file, by their paths in the model (``hidden/kernel``).

        An old file is replaced only once the new one is complete. Raises ValueError before there are weights,
        FileExistsError for an old file without ``overwrite``.
        """
        arrays = {key: v.numpy() for key, v, _ in self.held("", set(), True)}
        if not arrays:
            raise user_error(ValueError, f"save_weights: {self.name!r} has no weights yet; call it on some input first")
        files.write(path, arrays, overwrite)

    def load_weights(self, path: str | os.PathLike[str]) -> None:
        """Assign the weights that `save_weights` wrote for a model of this structure.

        Raises ValueError, and assigns nothing, where a weight is missing, left over or of another shape.
        """
        held = {key: v for key, v, _ in self.held("", set(), True)}
        arrays = files.read(path)
        if not held:
            raise user_error(ValueError, f"load_weights: {self.name!r} has no weights yet; call it on some input first")
        if missing := sorted(held.keys() ^ arrays.keys()):
            where = [f"{key} is only in the {'model' if key in held else 'file'}" for key in missing[:5]]
            raise user_error(ValueError, f"load_weights: {os.fspath(path)} is not of this model: {', '.join(where)}")
        for key, v in held.items():
            if arrays[key].shape != v.shape:
                raise user_error(ValueError, f"load_weights: {key} has shape {arrays[key].shape} in the file and "
                                             f"{v.shape} in the model")
        for key, v in held.items():
            v.assign(arrays[key])


class Sequential(Model):
    """Layers one after the other.

    >>> import jitgrad as jg
    >>> model = Sequential([jg.nn.layers.Dense(8, "relu"), jg.nn.layers.Dense(3)])
    >>> model(jg.ones((2, 4))).shape, [v.shape for v in model.trainable_variables]
    ((2, 3), [(4, 8), (8,), (8, 3), (3,)])
    """

    def __init__(self, layers: Iterable[Layer] | None = None, name: str | None = None) -> None:
        super().__init__(name=name)
        self._layers: list[Any] = []
        if isinstance(layers, Layer) or not hasattr(layers, "__iter__") and layers is not None:
            raise user_error(TypeError, f"Sequential: takes a list of layers, got {type(layers).__name__}")
        for layer in layers or ():
            self.add(layer)

    def add(self, layer: Layer) -> None:
        """Put a layer at the end."""
        if not isinstance(layer, Layer):
            raise user_error(TypeError, f"Sequential: takes layers, got {type(layer).__name__}")
        self._layers.append(layer)

    def pop(self) -> Layer:
        """Take the last layer away."""
        if not self._layers:
            raise user_error(TypeError, "Sequential: there are no layers to pop")
        layer: Layer = self._layers.pop()
        return layer

    def call(self, inputs: Any) -> Any:
        for layer in self._layers:
            inputs = layer(inputs)
        return inputs

    def __call__(self, inputs: Any, training: bool | None = None) -> Any:
        if training is None and self.built:
            return self.call(inputs)
        return self._call_with_training((inputs,), {} if training is None else {"training": training})

    def __len__(self) -> int:
        return len(self._layers)
