"""The claims of Lucas et al. 2021, "Analyzing Monotonic Linear Interpolation in Neural Network Loss Landscapes"."""

from __future__ import annotations

from mli_check.catalogue.records import Claim, Kind

_PAPER = "lucas2021"
_TH, _S, _Q, _D = Kind.THEOREM, Kind.PROPORTION, Kind.CURVE, Kind.DEFINITION

_SAMPLED = "The Gauss length of a sampled curve is the sum of the angles between successive chords."
_DELTA = "Δ is read as in L11: the largest rise above the running minimum, a rise on the last step included."
_CODE = "For comparison with the published code: "

CLAIMS: tuple[Claim, ...] = (
    Claim(
        id="U1", paper=_PAPER, kinds=(_D,), where="Definition 2",
        statement="The Gauss length of a smooth path of logits is the integral along it of the norm of the derivative "
        "of its unit tangent, that is the total angle through which its direction turns.",
        outcome="a definition",
        reading=_SAMPLED + " " + _CODE + "unit tangents of each example's logits, the trapezoid rule, the mean over "
        "examples.",
        planned="needs curves that keep the logits",
    ),
    Claim(
        id="U2", paper=_PAPER, kinds=(_TH,), where="Theorem 1",
        statement="If a smooth path z(α) of logits ends at the target, z(1) = z*, does not start there, and has a "
        "Gauss length below π/2, then the squared error to z* falls monotonically along it; the constant is sharp.",
        outcome="theorem; its constant follows from L′(a) = −2 ∫ₐ¹ ⟨z′(s), z′(a)⟩ ds",
        reading="The curve has to be regular on the closed interval [0, 1]. A network trained with cross-entropy never "
        "meets z(1) = z*: set z* := z(1), the squared distance to the final logits. " + _SAMPLED
        + " So read, the implication is exact on the samples.",
        planned="needs the Gauss length of sampled curves",
    ),
    Claim(
        id="U3", paper=_PAPER, kinds=(_TH,), where="Abstract and summary",
        statement="Wide networks and two-layer linear networks satisfy a sufficient condition for MLI under squared "
        "error. In a two-layer linear network the logits are quadratic in α, so the Gauss length is the angle between "
        "z′(0) and z′(1), which is below π.",
        outcome="sufficient conditions; the proofs were not at hand",
        planned="needs two-layer linear networks and the Gauss length",
    ),
    Claim(
        id="U4", paper=_PAPER, kinds=(_Q,), where="Figure 1",
        statement="For a ResNet20 on CIFAR-10 the train loss is monotone on the line to θ_F from its own and from an "
        "unrelated initialisation; the plane through both and θ_F shows the loss with the training trajectory "
        "projected.",
        outcome="both curves are monotone", planned="needs the plane through two initialisations and a projection",
    ),
    Claim(
        id="U5", paper=_PAPER, kinds=(_S,), where="Figure 2",
        statement="Among CIFAR-10 networks that reach a train loss of at most 1.0, those trained with SGD satisfy MLI "
        "and those trained with Adam often violate it.",
        outcome="holds with SGD, often fails with Adam",
        reading=_CODE + "CIFAR-10 networks count at a final train loss of at most 1.0, and as violators when Δ > 0.",
        planned="needs the sweep over training settings, on a GPU",
    ),
    Claim(
        id="U6", paper=_PAPER, kinds=(_Q,), where="Figure 3",
        statement="Of two fully connected networks on Fashion-MNIST that differ only in BN and both fit the training "
        "set almost perfectly, the one without interpolates monotonically and the one with BN does not; the principal "
        "components of their logit paths show it.",
        outcome="monotone without BN, not monotone with BN", planned="needs the PCA of logit paths",
    ),
    Claim(
        id="U7", paper=_PAPER, kinds=(_S,), where="Figure 4",
        statement="Deep autoencoders on MNIST (784-512-h-512-784 with h of 100, 50, 25, 10, 5, 2, 1) that reach a "
        "train loss below 30 are expected to satisfy MLI when trained with SGD and to violate it more often with Adam.",
        outcome="Figure 4 sets SGD beside Adam; the text at hand does not say how they came out",
        reading=_CODE + "autoencoders count at a train loss below 30.", planned="needs the autoencoder sweep",
    ),
    Claim(
        id="U8", paper=_PAPER, kinds=(_S,), where="Figure 5",
        statement="For MNIST and Fashion-MNIST classifiers trained with learning rates of 0.1 and 1e-4, the smallest Δ "
        "for which the curve is Δ-monotonic is set against the distance moved and the Gauss length, both of which "
        "should be larger for violators.",
        outcome="scatter plots for both learning rates; the text at hand gives no numbers",
        reading=_DELTA + " " + _CODE + "networks count at a final train loss of at most 0.1, and as violators when "
        "Δ > 1e-3; running statistics are left out of the distance; the Gauss length is that of U1.",
        planned="needs the sweep over training settings and the Gauss length",
    ),
)
