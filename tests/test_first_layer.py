"""The parts of the engines one by one: states in slots, sites that coincide, shared products, layers run in place."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers import images, random_state
from torch import Tensor, nn

from mli_check.data import Dataset
from mli_check.evaluation import lean, memory, recognition
from mli_check.evaluation.batches import Batches
from mli_check.evaluation.first_layer import FirstLayers, SharedLayer
from mli_check.evaluation.job import Job
from mli_check.evaluation.lean import Lean
from mli_check.evaluation.norm_stats import NormStats, call
from mli_check.evaluation.sites import Site, distinct
from mli_check.evaluation.slots import Slots
from mli_check.evaluation.tally import Tally
from mli_check.losses import LOSSES
from mli_check.paths import LinearPath, Plane, ScaledPath, Span

DATA = images(40, seed=3)
ALPHAS = (-0.5, 0.0, 0.3, 0.5, 1.0, 1.7)


@pytest.fixture(autouse=True)
def _inference() -> Any:
    with torch.inference_mode():
        yield


class Various(nn.Module):
    """Tied weights, an integer buffer, running statistics, a floating buffer, a single number."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.norm = nn.Linear(64, 64), nn.Linear(64, 64), nn.BatchNorm1d(64)
        self.second.weight = self.first.weight
        self.scale = nn.Parameter(torch.tensor([1.5]))
        self.register_buffer("code", torch.linspace(0, 1, 64))

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.norm(self.first(x.flatten(1) + self.code)).relu())
        return self.scale * x[:, :10]


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10)).eval().requires_grad_(False)


def wide(state: dict[str, Tensor], dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    return {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in state.items()}


def paths_of(model: nn.Module, dtype: torch.dtype | None = None) -> list[Span]:
    init, final, noise = (random_state(model, seed) for seed in range(3))
    if dtype is not None:
        init, final, noise = (wide(state, dtype) for state in (init, final, noise))
    integers = {name: tensor + 7 for name, tensor in final.items() if not tensor.is_floating_point()}
    final = final | integers
    name = next(iter(final))
    return [
        LinearPath(init, final),
        LinearPath(init, final, only="*.weight"),
        LinearPath(init, final, exponents={name: 2, list(final)[1]: 0}),
        ScaledPath(final),
        ScaledPath(final, exponents={name: 3}),
        Plane(final, noise),
    ]


def points_of(path: Span) -> list[tuple[float, ...]]:
    return [(a, b) for a in ALPHAS for b in (-1.0, 0.0, 0.25)] if path.dimension == 2 else [(a,) for a in ALPHAS]


# ---- slots


@pytest.mark.parametrize("dtype", [None, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("policy", ["interpolate", "freeze"])
@pytest.mark.parametrize("kind", [mlp, Various])
def test_slots_hold_the_states_of_the_path_bit_for_bit(kind: Any, policy: str, dtype: torch.dtype | None) -> None:
    model = kind()
    trained = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    slots = Slots(model)
    for path in paths_of(model, dtype):
        for point in points_of(path):
            slots.place(Site(path, point, policy, False))
            reference = kind()
            reference.load_state_dict(dict(path.tensors(point, policy, trained)))
            for name, tensor in reference.state_dict().items():
                assert torch.equal(model.state_dict()[name], tensor), (path.label, point, name)


def test_slots_leave_out_what_is_omitted_and_keep_their_memory() -> None:
    model = mlp()
    places = {name: tensor.data_ptr() for name, tensor in model.state_dict().items()}
    before = model[1].weight.clone()
    slots = Slots(model, {"1.weight"})
    path = paths_of(model)[0]
    slots.place(Site(path, (0.25,), "freeze", False))
    assert torch.equal(model[1].weight, before)
    assert torch.equal(model[3].weight, path.state(0.25)["3.weight"])
    assert {name: tensor.data_ptr() for name, tensor in model.state_dict().items()} == places


def test_a_nan_basis_state_with_coefficient_zero_leaves_no_trace() -> None:
    model = mlp()
    good = random_state(model, 0)
    spoilt = {name: tensor * float("nan") for name, tensor in good.items()}
    slots = Slots(model)
    for path, point in ((LinearPath(good, spoilt), 0.0), (LinearPath(spoilt, good), 1.0), (ScaledPath(spoilt), 0.0)):
        slots.place(Site(path, (point,), "freeze", False))
        assert all(tensor.isfinite().all() for tensor in model.state_dict().values())


# ---- sites


def sites_of(path: Span, of_path: str = "freeze", recalibrated: bool = False) -> list[Site]:
    return [Site(path, point, of_path, recalibrated) for point in points_of(path)]


def test_sites_around_one_final_state_share_its_end() -> None:
    model = mlp()
    final = random_state(model, 9)
    paths = [LinearPath(random_state(model, seed), final) for seed in range(3)]
    paths += [LinearPath(random_state(model, 0), dict(final)), ScaledPath(final), Plane(final, random_state(model, 5))]
    sites, places = distinct(Site(path, path.end, "freeze", False) for path in paths)
    assert places == [0] * 6
    assert sites[0].path is paths[0]


def test_sites_coincide_only_where_their_states_are_equal() -> None:
    model = mlp()
    trained = [name for name, _ in model.named_parameters()]
    init, final = random_state(model, 0), random_state(model, 1)
    paths = [
        LinearPath(init, final),
        LinearPath(init, final, only="*.weight"),
        LinearPath(init, final, only="*.bias"),
        LinearPath(init, final, exponents={"1.bias": 2}),
        LinearPath(init, final, exponents=dict.fromkeys(final, 1)),
        LinearPath(final, init),
        LinearPath(final, final),
        ScaledPath(final),
        ScaledPath(final, exponents={"1.bias": 2}),
        Plane(final, init),
    ]
    asked = [site for path in paths for site in sites_of(path)]
    sites, places = distinct(asked)
    assert len(sites) < len(asked)

    def state(site: Site) -> dict[str, Tensor]:
        return dict(site.path.tensors(site.point, site.of_path, trained))

    for site, place in zip(asked, places, strict=True):
        one, other = state(site), state(sites[place])
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_sites_under_other_policies_or_other_final_buffers_are_apart() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.Linear(16, 10))
    init, final = random_state(model, 0), random_state(model, 1)
    path = LinearPath(init, final)
    asked = [Site(path, (1.0,), of, again) for of in ("freeze", "interpolate") for again in (False, True)]
    assert distinct(asked)[1] == [0, 1, 2, 3]
    back = LinearPath(final, init)  # its statistics are those of `init`
    assert distinct([Site(path, (0.0,), "freeze", False), Site(back, (1.0,), "freeze", False)])[1] == [0, 1]
    assert distinct([])[0] == []


# ---- shared layers


def job_of(model: nn.Module, paths: list[Span], data: Dataset = DATA, limit: int | None = None) -> Job:
    sites = [site for path in paths for site in sites_of(path)]
    loss = LOSSES["cross_entropy"]
    tally = Tally(data, loss, "cross_entropy", sites=len(sites), outcomes=0, keep="summary")
    stats = NormStats(None)
    room = memory.room(model, data, limit, stats)
    return Job(model=model, data=data, norm_stats=stats, sites=sites, tally=tally, room=room)


def found(model: nn.Module, paths: list[Span], data: Dataset = DATA, least: int = 0) -> tuple[Job, FirstLayers]:
    job = job_of(model, paths, data)
    shared = recognition.find(job, least)
    assert isinstance(shared, FirstLayers), shared
    return job, shared


LAYERS = {
    "linear": (lambda bias: nn.Linear(12, 7, bias=bias), (12,)),
    "sequence": (lambda bias: nn.Linear(12, 7, bias=bias), (5, 12)),
    "1d": (lambda bias: nn.Conv1d(3, 6, 3, stride=2, bias=bias), (3, 9)),
    "2d": (lambda bias: nn.Conv2d(4, 6, 3, groups=2, padding=1, padding_mode="replicate", bias=bias), (4, 5, 5)),
    "3d": (lambda bias: nn.Conv3d(2, 3, 2, dilation=2, bias=bias), (2, 4, 4, 4)),
}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", LAYERS)
def test_a_shared_layer_gives_its_own_outputs_at_every_point(kind: str, bias: bool) -> None:
    make, shape = LAYERS[kind]
    layer = make(bias).requires_grad_(False)
    inputs = torch.randn(20, *shape, generator=torch.Generator().manual_seed(0))
    init, final = random_state(layer, 0), random_state(layer, 1)
    paths = [LinearPath(init, final), ScaledPath(final), Plane(final, init)]
    if bias:
        paths += [LinearPath(init, final, exponents={"bias": 2}), LinearPath(init, final, only="weight")]
    for path in paths:
        folded = bias and not (getattr(path, "exponents", None) or getattr(path, "still", None))
        for fold in {folded, False}:
            shared, slots = SharedLayer("", layer), Slots(layer, {"weight"})
            shared.inputs = inputs
            plain = make(bias)
            for site in sites_of(path):
                slots.place(site)
                plain.load_state_dict(path.state(site.point))
                output = shared.prepare(site, slots, fold)
                assert output == pytest.approx(plain(inputs), rel=1e-4, abs=1e-5)
                assert shared.forward(inputs) is output
            assert len(shared._products) == len(path.basis)
            shared.keep_only(ScaledPath(final))
            assert len(shared._products) == 1
            shared.forget()
            assert shared.bytes == 0


def test_products_are_forgotten_with_their_rows_and_memory_is_used_again() -> None:
    model = mlp()
    job, shared = found(model, [LinearPath(random_state(model, 0), random_state(model, 1))])
    with shared:
        places = set()
        for rows in (slice(0, 10), slice(10, 40)):
            shared.begin(job.data, rows)
            assert shared.layers[0]._products == {}
            assert torch.equal(shared.layers[0].inputs, job.data.inputs[rows].flatten(1))
            for site in job.sites:
                shared.place(site)
                places.add((rows.start, shared.layers[0].ready.data_ptr()))
        assert len(places) == 2
    assert "forward" not in vars(model[1])
    assert shared.layers[0].inputs is None


def test_everything_of_the_layers_comes_back_after_an_error() -> None:
    model = mlp()
    job, shared = found(model, [LinearPath(random_state(model, 0), random_state(model, 1))])

    def fail() -> None:
        with shared:
            shared.begin(job.data, slice(0, 5))
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert "forward" not in vars(model[1])
    assert not model[1]._forward_hooks
    assert shared.layers[0].bytes == 0


def test_reasons_are_given_for_what_is_not_shared() -> None:
    model = mlp()
    init, final = random_state(model, 0), random_state(model, 1)
    path = LinearPath(init, final)
    assert recognition.find(job_of(model, [path]), 65) == (
        "no first layer to share: `1` has only 64 products an output, and combining outputs costs as much"
    )
    assert isinstance(recognition.find(job_of(model, [path]), 64), FirstLayers)
    few = job_of(model, [path])
    few = Job(model=model, data=DATA, norm_stats=few.norm_stats, sites=few.sites[:2], tally=few.tally, room=few.room)
    assert recognition.find(few) == "no first layer to share: `1` would need 2 products for 2 points"
    half = mlp().bfloat16()
    data = Dataset(DATA.inputs.bfloat16(), DATA.targets)
    states = [random_state(half, seed) for seed in (0, 1)]
    assert "`1` computes in torch.bfloat16" in str(recognition.find(job_of(half, [LinearPath(*states)], data)))


def test_sharing_that_changes_outputs_is_noticed() -> None:
    class Reading(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(64, 10)

        def forward(self, x: Tensor) -> Tensor:
            return self.first(x.flatten(1)) + self.first.weight.sum()

    model = Reading().requires_grad_(False)
    path = LinearPath(random_state(model, 0), random_state(model, 1))
    assert str(recognition.find(job_of(model, [path]))).startswith("sharing `first` changed the outputs of LinearPath")


@pytest.mark.parametrize(
    ("wanted", "given", "same"),
    [
        (torch.ones(3), torch.ones(3) + 1e-6, True),
        (torch.ones(3), torch.ones(3) + 1e-3, False),
        (torch.tensor([1.0, torch.nan]), torch.tensor([1.0, torch.nan]), True),
        (torch.tensor([1.0, torch.inf]), torch.tensor([1.0, torch.nan]), False),
        (torch.tensor([1.0, torch.inf]), torch.tensor([1.0, -torch.inf]), False),
        (torch.zeros(3), torch.full((3,), 1e-30), False),
        (torch.zeros(0), torch.zeros(0), True),
        ({"a": torch.ones(2)}, {"b": torch.ones(2)}, False),
        ((torch.ones(2), None), (torch.ones(2), None), True),
        ([torch.ones(2)], [torch.ones(2) * 2], False),
        (torch.ones(2, dtype=torch.bfloat16), torch.ones(2), True),
    ],
)
def test_outputs_agree_but_for_rounding(wanted: Any, given: Any, same: bool) -> None:
    # went wrong once: outputs of two dtypes are a RuntimeError of allclose
    assert recognition.agree(wanted, given) == same


# ---- layers run in place


def lean_of(model: nn.Module, path: Span | None = None) -> tuple[Job, Lean]:
    path = path or LinearPath(random_state(model, 0), random_state(model, 1))
    job = job_of(model.requires_grad_(False).eval(), [path])
    return job, lean.find(job, set())


def test_layers_run_in_place_give_the_same_bits_and_come_back() -> None:
    model = mlp()
    job, thrift = lean_of(model)
    assert thrift.bytes_per_example in (4 * 16, 4 * 26)  # with or without the layer that gives the outputs
    slots = Slots(model)
    for site in job.sites:
        slots.place(site)
        plain = [call(model, DATA, rows) for rows in (slice(0, 40), slice(0, 7), slice(7, 40))]
        with thrift:
            assert model[2].inplace
            again = [call(model, DATA, rows).clone() for rows in (slice(0, 40), slice(0, 7), slice(7, 40))]
        assert not model[2].inplace
        assert not any("forward" in vars(layer) for layer in model)
        for one, other in zip(plain, again, strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("kind", ["skip", "hooked", "subclass", "in place already", "three dimensions", "twice"])
def test_layers_that_cannot_run_in_place_are_left_alone(kind: str) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(8, 8), nn.Linear(64, 10)
            self.relu = type("Other", (nn.ReLU,), {})() if kind == "subclass" else nn.ReLU(kind == "in place already")

        def forward(self, x: Tensor) -> Tensor:
            h = self.first(x[:, 0])
            r = self.relu(h)
            return self.last((r + h if kind == "skip" else r).flatten(1)) * 1

    model = Net()
    if kind == "hooked":
        model.relu.register_forward_hook(lambda layer, args, out: out + args[0])
    if kind == "twice":
        model.first = nn.Sequential(model.first, model.first)
    _, thrift = lean_of(model)
    assert thrift._rectifiers == ([model.relu] if kind in ("three dimensions", "twice") else [])
    assert set(thrift._linears) <= {model.last}  # `first` is called on three dimensions, or twice


# ---- batches


@pytest.mark.parametrize("most", [1, 2, 3, 7, 10, 16, 25, 50, 99, 100])
@pytest.mark.parametrize(("count", "size"), [(100, 100), (100, 40), (99, 50), (7, 7), (1, 1)])
def test_every_row_is_visited_once_for_every_item_whatever_fits(count: int, size: int, most: int) -> None:
    # went wrong once: where halves are halved again, the later ones are cut short
    seen: dict[int, list[int]] = {item: [] for item in range(3)}
    batches = Batches(count, size)

    def step(rows: slice, item: int) -> None:
        if rows.stop - rows.start > most - (item == 2 and most > 1):
            raise torch.OutOfMemoryError
        seen[item] += range(rows.start, rows.stop)

    ticks: list[int] = []
    for rows in batches:
        batches.visit(rows, [0, 1, 2], step, after=lambda rows: ticks.append(rows.stop - rows.start))
    assert all(sorted(rows) == list(range(count)) for rows in seen.values())
    assert sum(ticks) == 3 * count
    assert batches.halved == (size > most - (most > 1)) or count <= most


def test_a_beginning_that_does_not_fit_halves_too() -> None:
    seen: list[int] = []

    def begin(rows: slice) -> None:
        if rows.stop - rows.start > 5:
            raise torch.OutOfMemoryError

    batches = Batches(40, 10)
    for rows in batches:
        batches.visit(rows, [None], lambda rows, _: seen.extend(range(rows.start, rows.stop)), begin=begin)
    assert sorted(seen) == list(range(40))
    assert batches.notes == ("out of memory: went on with batches of 5",)


def test_a_row_that_does_not_fit_is_an_error() -> None:
    def step(rows: slice, item: int) -> None:
        raise torch.OutOfMemoryError("too much")

    with pytest.raises(torch.OutOfMemoryError, match="too much"):
        Batches(8, 4).visit(slice(0, 4), [0], step)
