"""Many trained networks: train_many(settings) reads those that are stored and trains the others, at once where it pays.

Networks that differ in seeds, init, optimiser, learning rate or random labels alone are trained as one ensemble
(`training.ensemble`) where that is faster, the others one by one. Each is kept under its own setting's digest, so that
it makes no difference to a reader who trained it; the manifest says who did (`trainer`, `group`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import torch

from mli_check.data import Dataset
from mli_check.errors import OptionError
from mli_check.progress import Progress
from mli_check.runs import Run, Store
from mli_check.settings import DataSetting, ModelSetting, Setting
from mli_check.training.ensemble import fit_together
from mli_check.training.fit import Fit, check, fit, network
from mli_check.training.grouping import groups
from mli_check.training.sets import examples, targeted


def train_many(
    settings: Iterable[Setting],
    store: Store | None = None,
    progress: Progress | None = None,
    *,
    data: Dataset | None = None,
    device: torch.device | str = "cpu",
) -> list[Run]:
    """The trained networks of `settings`, in their order; those in the store are read, each other one is trained once.

    They are trained on the training sets that they name, on `device`, or on `data` where it lies, which then is the
    one that all of them name. Networks are stored as soon as they are trained. Two processes that ask for the same ones
    train them once. `progress(done, total)` counts epochs of networks. Raises OptionError or UnknownNameError for
    settings whose network cannot be built for their data or trained on them, before any network is trained, and
    StoreError if the store cannot be written.
    """
    wanted = list(settings)
    found = {setting.digest: setting for setting in wanted}
    if data is not None and len({setting.data for setting in wanted}) > 1:
        raise OptionError("`data` is one training set, and the settings name several; leave it out")
    store = store or Store()
    runs = {digest: run for digest, setting in found.items() if (run := store.find(setting)) is not None}
    missing = [setting for digest, setting in found.items() if digest not in runs]
    work = _Work(store, _TrainingSets(data, device), progress, total=sum(s.recipe.epochs for s in missing))
    work.check(missing)
    for group in groups(missing, work.sets.of):
        runs |= work.train(group)
    return [runs[setting.digest] for setting in wanted]


class _Work:
    """What is trained, from which data, where to, and how far it has come."""

    def __init__(self, store: Store, sets: _TrainingSets, progress: Progress | None, total: int) -> None:
        self.store, self.sets = store, sets
        self.total, self._done, self._told = total, 0, 0
        self._progress = progress

    def check(self, settings: Sequence[Setting]) -> None:
        """Raise for a setting that does not fit its data, before any is trained: one network a model is built."""
        built = set[tuple[ModelSetting, DataSetting, bool]]()
        for setting in settings:
            data, model = self.sets.of(setting), (setting.model, setting.data, setting.reconstructs)
            try:
                check(setting, data)
                if model not in built:
                    network(setting, data)
            except OptionError as error:
                error.args = (f"{setting.summary}: {error}",)
                raise
            built.add(model)

    def train(self, group: Sequence[Setting]) -> dict[str, Run]:
        """Train and store those of a group that nobody has stored by now; the runs of all, by digest."""
        runs: dict[str, Run] = {}
        with self.store.lock(setting.digest for setting in group):
            missing = []
            for setting in group:
                run = self.store.settle(setting, stacklevel=4)
                if run is None:
                    missing.append(setting)
                else:
                    runs[setting.digest] = run
                    self._advance(setting.recipe.epochs)
            for setting, result, others in self._fits(missing):
                trainer, name = ("fit", None) if len(others) == 1 else ("ensemble", _name(others))
                self.store.write(setting, result, trainer=trainer, group=name)
                runs[setting.digest] = self.store.read_back(setting)
        return runs

    def _fits(self, settings: Sequence[Setting]) -> Iterable[tuple[Setting, Fit, Sequence[Setting]]]:
        """Each setting trained, with those that were trained with it; halves where memory does not do for all."""
        if not settings:
            return
        data = [self.sets.of(setting) for setting in settings]
        before = self._done
        try:
            if len(settings) == 1:
                fits = [fit(settings[0], data[0], self._epochs(1))]
            else:
                fits = fit_together(settings, data, self._epochs(len(settings)))
        except torch.OutOfMemoryError:
            if len(settings) == 1:
                raise
        else:
            self._done = before
            self._advance(sum(setting.recipe.epochs for setting in settings))
            yield from ((setting, result, settings) for setting, result in zip(settings, fits, strict=True))
            return
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self._done = before
        for half in (settings[: len(settings) // 2], settings[len(settings) // 2 :]):
            yield from self._fits(half)

    def _epochs(self, networks: int) -> Progress:
        before = self._done

        def advance(done: int, total: int) -> None:
            self._done = before
            self._advance(done * networks)

        return advance

    def _advance(self, epochs: int) -> None:
        self._done += epochs
        if self._progress is not None and self._done > self._told:  # less is done after memory ran out
            self._told = self._done
            self._progress(self._done, self.total)


class _TrainingSets:
    """The training sets that settings name, each loaded once; those with random labels share their inputs."""

    def __init__(self, data: Dataset | None, device: torch.device | str) -> None:
        self._given, self._device = data, device
        self._examples: dict[tuple[DataSetting, bool], Dataset] = {}
        self._targeted: dict[tuple[DataSetting, bool], Dataset] = {}

    def of(self, setting: Setting) -> Dataset:
        """The training set of one setting."""
        if self._given is not None:
            return self._given
        key = setting.data, setting.reconstructs
        if key not in self._targeted:
            plain = DataSetting(name=setting.data.name, subset=setting.data.subset), setting.reconstructs
            if plain not in self._examples:
                self._examples[plain] = examples(setting).to(self._device)
            self._targeted[key] = targeted(self._examples[plain], setting)
        return self._targeted[key]


def _name(settings: Sequence[Setting]) -> str:
    """An ensemble's name: the digest of its members'."""
    return hashlib.sha256("".join(sorted(setting.digest for setting in settings)).encode()).hexdigest()
