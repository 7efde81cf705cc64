"""The claims of Wang et al. 2023, "Plateau in Monotonic Linear Interpolation"."""

from __future__ import annotations

from mli_check.catalogue.records import Claim, Kind

_PAPER = "wang2023"
_E, _TH, _Q = Kind.IDENTITY, Kind.THEOREM, Kind.CURVE

CLAIMS: tuple[Claim, ...] = (
    Claim(
        id="W1", paper=_PAPER, kinds=(_Q,), where="Section 1, Figure 1",
        statement="On the line from θ₀ to θ_F the curve of an MNIST network is monotone and nearly convex, while both "
        "loss and error of a CIFAR-10 network stay high until close to θ_F.",
        outcome="no plateau on MNIST, a long one on CIFAR-10", planned="needs CIFAR-10 networks, on a GPU",
    ),
    Claim(
        id="W2", paper=_PAPER, kinds=(_TH,), where="Abstract",
        statement="Where the last-layer biases of a deep network differ between classes, both loss and error have a "
        "long plateau on the way from θ₀ to θ_F.",
        outcome="theorem; its hypotheses were not at hand",
        planned="needs networks whose only bias is in the last layer, over a range of depths",
    ),
    Claim(
        id="W3", paper=_PAPER, kinds=(_TH,), where="Abstract",
        statement="Training can make the last-layer biases differ between classes even on a perfectly balanced "
        "dataset.",
        outcome="shown on a simple model",
        planned="needs an exactly balanced dataset and a simple model with a last bias",
    ),
    Claim(
        id="W4", paper=_PAPER, kinds=(_Q,), where="Section 1",
        statement="How long the plateau is depends on the biases, the scale of the initialisation and the depth, and "
        "not necessarily on how hard the problem is to optimise.",
        outcome="the paper's explanation of the plateau",
        planned="needs networks that differ in biases, initial scale and depth alone",
    ),
    Claim(
        id="W5", paper=_PAPER, kinds=(_TH,), where="Section 1",
        statement="In the neural tangent kernel regime, where outputs are nearly linear in the parameters, the loss on "
        "the line falls monotonically and is convex, so it has no plateau.",
        outcome="stated as the reason why kernel theory does not explain plateaus",
        planned="needs networks that train in the near-linear regime",
    ),
    Claim(
        id="W6", paper=_PAPER, kinds=(_E,), where="Section 1",
        statement="For a homogeneous network with a small initialisation, the output on the line is a scaled version "
        "of that at θ_F with the same predictions, so the error has no plateau.",
        outcome="stated of the mean-field regime; exact only in the limit of a vanishing initialisation",
        planned="needs homogeneous networks over a range of initial scales",
    ),
    Claim(
        id="W7", paper=_PAPER, kinds=(_Q,), where="Abstract",
        statement="Interpolating weights and biases together affects the output very differently from interpolating "
        "either alone.",
        outcome="said to be shown in theory and experiment", planned="needs paths that move only a part of the tensors",
    ),
    Claim(
        id="W8", paper=_PAPER, kinds=(_Q,), where="Section 1; Appendix A",
        statement="Plateau and hardness come apart: there are easy problems with a long plateau and hard ones without.",
        outcome="examples in Appendix A, which was not at hand",
        planned="needs a constructed easy problem with a plateau and a hard one without",
    ),
)
