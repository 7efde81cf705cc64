"""Our own claims: consequences that follow from the papers' arguments and that none of the papers tested."""

from __future__ import annotations

from mli_check.catalogue.records import Claim, Kind

_PAPER = "mli-check"
_E, _TH, _S, _Q, _D = Kind.IDENTITY, Kind.THEOREM, Kind.PROPORTION, Kind.CURVE, Kind.DEFINITION

_COVARIANCE = (
    "As in L14 and L15, K is positive semidefinite and the stationary covariance is η(2I − ηK)⁻¹ for commuting K."
)

CLAIMS: tuple[Claim, ...] = (
    Claim(
        id="X1", paper=_PAPER, kinds=(_E,), where="Follows from T10, T11 and T15",
        statement="With factors that are powers of two, VSI, GSI and RSI give bit-identical outputs in IEEE "
        "arithmetic, as long as nothing under- or overflows, because only exponents change.",
        outcome="equality without tolerance",
    ),
    Claim(
        id="X2", paper=_PAPER, kinds=(_E,), where="Follows from T11 and T12",
        statement="For a bias-free ReLU network in which all paths from input to output have the same number L of "
        "weights, the zero path follows from a single forward pass: the logits at αθ_F are α^L times those at θ_F. It "
        "fails across skip connections of another depth.",
        outcome="logits α^L z",
    ),
    Claim(
        id="X3", paper=_PAPER, kinds=(_E, _Q), where="Follows from T16 and T17",
        statement="For networks of convolution, BN with batch statistics and ReLU, as η goes to 0 the prediction at "
        "αθ_F is argmax(Wh + b/α) of the last layer, and without its bias the error is exactly flat, ResNets "
        "included. The usual η spoils this: as the affine weights shrink too, it acts as η/α² in the first BN and as "
        "η/α⁴ after it.",
        outcome="exact when η is scaled by α² in the first BN and α⁴ after it; with the usual η predictions agree for "
        "8% only at α = 0.02",
    ),
    Claim(
        id="X4", paper=_PAPER, kinds=(_E,), where="Explains W2 and W4",
        statement="In a network of L layers whose only bias is the last one, on the zero path class y overtakes class "
        "k where α^(L−1) (s_y − s_k) = b_k − b_y, with s the logits before the bias at θ_F. One forward pass thus "
        "predicts every example's flip, which tends to α = 1 with depth.",
        outcome="flips where predicted; longer plateaus with depth",
        reading="L counts the last layer. That the plateau grows with depth is no identity, since b and s need not be "
        "alike in networks of several depths: their ratio is recorded.",
    ),
    Claim(
        id="X5", paper=_PAPER, kinds=(_E,), where="Follows from T15 and T4",
        statement="On the zero path RSI amounts to interpolating the bias of layer l as α^l: the error is then exactly "
        "flat for α > 0, so the plateau of T4 is due to the mismatch of the biases alone.",
        outcome="flat error", reading="At α = 0 all logits tie, so the error there is that of chance.",
    ),
    Claim(
        id="X6", paper=_PAPER, kinds=(_TH,), where="Generalises T10 to T16",
        statement="The per-tensor scale symmetries of a network are the null space of a linear system in the "
        "log-scales of its tensors: additions equate scales, normalisation frees them, biases take the accumulated "
        "scale.",
        outcome="VSI, GSI, RSI and NSI are elements of the null space",
    ),
    Claim(
        id="X7", paper=_PAPER, kinds=(_E, _Q), where="Explains T8",
        statement="Layer normalisation frees the weights that feed it but not its own affine part. Scaling the query "
        "and key weights by α scales the attention logits by α², and by α⁴ along αθ, where the normalisation's weight "
        "shrinks too, so that no rescaling of outputs restores the function; residual additions and GELU break it as "
        "well. That this explains T8 is a hypothesis.",
        outcome="each cause has equations of its own, which are gone when it alone is left out",
    ),
    Claim(
        id="X8", paper=_PAPER, kinds=(_TH, _S), where="Sharpens L15",
        statement="In the noisy quadratic model with small ηλ and a large effective rank, the probability of a "
        "monotone line is about Φ(−√(η/2) tr K/‖K‖_F), so 1/2 is only the limit of small learning rates. A grid of "
        "step h shows the rise if and only if (c₂−c₁)ᵀK c₂ > (h/2)(c₂−c₁)ᵀK(c₂−c₁).",
        outcome="d = 1000, η = 0.01: monotone with probability about 0.02, but about 0.98 look so on 50 steps",
        reading=_COVARIANCE, planned="needs the noisy quadratic model",
    ),
    Claim(
        id="X9", paper=_PAPER, kinds=(_TH,), where="Sharpens T22",
        statement="With ε = −∇L(θ_F) the train loss rises at the end of the path if and only if ∇L·θ_F + ‖∇L‖² > 0. "
        "At a stationary point of training with weight decay λ this is −λ(1−λ)‖θ_F‖² < 0: no rise.",
        outcome="no rise of the train loss at such a point",
        reading="L is the train loss without the weight decay, λ/2‖θ‖² with λ < 1. T22 speaks of the test error, and "
        "its noise is so small that the path is practically the zero path.",
    ),
    Claim(
        id="X10", paper=_PAPER, kinds=(_TH,), where="Explains T9",
        statement="For a linear softmax classifier whose W is a stationary point of the L2-regularised loss, the loss "
        "on the line from noise N to W is convex and falls whenever W·(W−N) ≥ 0, so T9 is no evidence about deep "
        "networks.",
        outcome="convex and monotone for every such N",
        reading="The loss on the line is the one without the L2 term. Its slope at W is −λ W·(W−N), so from every "
        "other N it rises at the end.",
    ),
    Claim(
        id="X11", paper=_PAPER, kinds=(_E, _Q), where="Bears on L7 and T10",
        statement="Distance depends on the choice among equivalent parameters: an exact VSI rescaling moves θ_F far "
        "away with the same function, and the train loss stays monotone. Distance alone therefore cannot explain L7; "
        "distance after the scales are brought to a canonical form has to be compared.",
        outcome="a distance of 6.7 became 52 in a trial, with the curve still monotone",
    ),
    Claim(
        id="X12", paper=_PAPER, kinds=(_D, _Q), where="Extends T27 to linear mode connectivity",
        statement="The same curves can be drawn between two trained networks: the barrier is the largest excess over "
        "the chord, with the bounds of the rise test, and recomputing BN statistics changes the answer.",
        outcome="another barrier with recomputed statistics", planned="needs the barrier between two trained networks",
    ),
)
