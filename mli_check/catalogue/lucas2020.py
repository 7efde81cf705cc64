"""The claims of Lucas et al. 2020, "On Monotonic Linear Interpolation of Neural Network Parameters"."""

from __future__ import annotations

from mli_check.catalogue.records import Claim, Kind

_PAPER = "lucas2020"
_E, _TH, _S, _Q, _D = Kind.IDENTITY, Kind.THEOREM, Kind.PROPORTION, Kind.CURVE, Kind.DEFINITION

_SWEEP = "needs the sweep over training settings"
_DELTA = "Δ is read as in L11: the largest rise above the running minimum, a rise on the last step included."
_DENOMINATORS = (
    "The grid is 72 architectures x 2 initialisations x 3 seeds = 432 networks. The percentages imply much smaller "
    "denominators (59 of 66, 52 of 61 and, with the last digit cut off, 20 of 51 are the smallest that fit 89.39, "
    "85.25 and 39.21), so the paper's figures carry intervals too. The code published with the 2021 paper counts "
    "fully connected networks whose final train loss is at most 0.1 and calls them non-monotone when Δ > 1e-3; for "
    "CIFAR-10, at most 1.0 and Δ > 0."
)

CLAIMS: tuple[Claim, ...] = (
    Claim(
        id="L1", paper=_PAPER, kinds=(_S,), where="Section 2.1, Figure 1; Appendix C",
        statement="The train loss of a network with one hidden layer of 1000 units on Fashion-MNIST is monotone on the "
        "line from θ₀ to θ_F for every training-set size from 10 to 60,000 and every learning rate of 0.03, 0.1, 0.3, "
        "1.",
        outcome="no violation", planned=_SWEEP,
    ),
    Claim(
        id="L2", paper=_PAPER, kinds=(_S,), where="Section 2.1; Appendix B.2, Figures 6 and 7",
        statement="Over hidden layers of 1 to 10,000 units and learning rates of 0.03 to 3 on Fashion-MNIST, few "
        "networks violate MLI, and those that do are large and trained with a learning rate of at least 1.",
        outcome="three violations: one network of 10,000 units at a large learning rate, two that did not converge",
        reading=_DELTA, planned=_SWEEP,
    ),
    Claim(
        id="L3", paper=_PAPER, kinds=(_S,), where="Appendix B.2",
        statement="MLI holds whatever share of the training labels is replaced by random ones, from 0% to 100% in "
        "steps of 2.5% (Fashion-MNIST, two hidden layers of 1024 units, SGD, learning rate 0.1, momentum 0.9).",
        outcome="no violation at any level of corruption", planned="needs label corruption in a sweep",
    ),
    Claim(
        id="L4", paper=_PAPER, kinds=(_S,), where="Section 2.2, Table 1; Appendix C",
        statement="Among fully connected networks trained with Adam on MNIST and CIFAR-10, the share that satisfies "
        "MLI falls as the learning rate goes from 1e-5 over 1e-4 and 1e-3 to 1e-2.",
        outcome="MNIST 96.00, 89.39, 62.00, 50.75% monotone (test accuracy 95.44, 96.97, 96.64, 90.19%); "
        "CIFAR-10 100, 85.25, 78.57, 56.00% (41.29, 45.67, 45.08, 31.01%)",
        reading=_DENOMINATORS, planned=_SWEEP,
    ),
    Claim(
        id="L5", paper=_PAPER, kinds=(_S,), where="Section 2.2, Table 2; Appendix C",
        statement="Among fully connected networks trained with SGD on MNIST and CIFAR-10, all satisfy MLI at learning "
        "rates of 1e-4, 1e-3 and 1e-2, and on MNIST most violate it at 0.1.",
        outcome="MNIST 100, 100, 100 and 39.21% monotone (test accuracy 95.31, 96.60, 97.10, 96.27%); "
        "CIFAR-10 100, 100, 100% (45.52, 44.22, 45.72%)",
        reading="The row of CIFAR-10 for the learning rate 0.1 is not in the text. " + _DENOMINATORS, planned=_SWEEP,
    ),
    Claim(
        id="L6", paper=_PAPER, kinds=(_S,), where="Section 2.2, Tables 1 and 2",
        statement="Adaptive optimisers (Adam, RMSProp) and higher learning rates produce violations of MLI more often "
        "than SGD and lower ones.",
        outcome="more violations with adaptive optimisers, most at high learning rates", planned=_SWEEP,
    ),
    Claim(
        id="L7", paper=_PAPER, kinds=(_S,), where="Section 2.2, Figure 2; Appendix B.1, Figure 5",
        statement="The further the parameters have moved from initialisation in Euclidean distance, the more likely "
        "the network violates MLI.",
        outcome="a strong correlation between distance and violation",
        reading="The text speaks of a positive correlation with the MLI property; the correlation is with its "
        "violation. Figure 5 takes networks with a train loss of at most 0.01 and calls them violators when max Δ > 0. "
        + _DELTA + " The code published with the 2021 paper leaves running statistics out of the distance.",
        planned=_SWEEP,
    ),
    Claim(
        id="L8", paper=_PAPER, kinds=(_Q,), where="Section 2.3, Figure 3",
        statement="VGG19 without BN and ResNet32 with BN, trained with SGD (learning rate 0.1) or Adam (0.01), halved "
        "every 60 epochs, may violate MLI although they perform well.",
        outcome="MLI may fail on these architectures; good performance in training and test",
        planned="needs VGG19 and ResNet32 subjects, on a GPU",
    ),
    Claim(
        id="L9", paper=_PAPER, kinds=(_S,), where="Section 2.3, Figure 4",
        statement="Fully connected networks on MNIST and CIFAR-10 violate MLI more often with batch normalisation than "
        "without it, averaged over the other settings.",
        outcome="as worded, MLI breaks in 83% of cases with BN and in 58% without",
        reading="Literally BN breaks MLI in 83% of cases, which contradicts Tables 1 and 2 (mean monotone rate 83.8% "
        "over 15 rows). That MLI holds for 83% without and 58% with BN is likelier. The direction is tested, both are "
        "reported.",
        planned=_SWEEP,
    ),
    Claim(
        id="L10", paper=_PAPER, kinds=(_S,), where="Appendix B",
        statement="The activation function, the loss, the batch size, regularisation and the form of the "
        "initialisation have no significant effect on how often MLI holds.",
        outcome="no significant effect", planned="needs the sweep over training settings and an equivalence test",
    ),
    Claim(
        id="L11", paper=_PAPER, kinds=(_D,), where="Appendix B.1, Definition 1",
        statement="A path is Δ-monotonic when no bump of the loss along it rises more than Δ above the point where the "
        "bump starts; MLI is the case Δ = 0.",
        outcome="a definition",
        reading="Δ is the smallest such number: the largest rise above the running minimum. A rise that never comes "
        "back before α = 1 counts, also one on the last step, which the code published with the 2021 paper misses.",
    ),
    Claim(
        id="L12", paper=_PAPER, kinds=(_Q,), where="Appendix B.3, Figure 1",
        statement="MLI can hold for a network whose loss rose over a barrier during training.",
        outcome="several runs of SGD crossed large barriers and satisfy MLI; called inconclusive in general",
        planned="needs runs that cross a barrier, chosen by their training history",
    ),
    Claim(
        id="L13", paper=_PAPER, kinds=(_TH,), where="Appendix D, Lemma 2",
        statement="For fully connected networks of width n under squared error, trained with a learning rate O(1/n), "
        "the distance moved is at most C n^(−1/2) with high probability; in the limit of infinite width MLI therefore "
        "holds.",
        outcome="informal lemma after Lee et al., some assumptions left out",
        reading="It needs the standard parametrisation and the learning rate η₀/n with η₀ pinned.",
        planned="needs a series of widths trained with the learning rate η₀/n",
    ),
    Claim(
        id="L14", paper=_PAPER, kinds=(_E,), where="Appendix D.1, Equations 3 to 7",
        statement="In the noisy quadratic model L(θ) = ½θᵀKθ the loss falls monotonically from c₁ to c₂ if and only if "
        "its derivative along the line is negative at the far end, (c₂−c₁)ᵀK c₂ < 0.",
        outcome="the paper asks for negative derivatives at both ends and calls the second enough",
        reading="With K positive semidefinite the derivative never falls along the line, so the one at the far end "
        "alone is necessary and sufficient.",
        planned="needs the noisy quadratic model",
    ),
    Claim(
        id="L15", paper=_PAPER, kinds=(_S,), where="Appendix D.1, Equation 8, Figure 8",
        statement="In the noisy quadratic model the interpolation to a stationary iterate is monotone with probability "
        "near 1/2, and the spread of the derivative at the far end shrinks with the learning rate, which makes "
        "violations harder to see on a grid.",
        outcome="about 1/2; smaller standard deviation for smaller learning rates",
        reading="The stationary covariance is η(2I − ηK)⁻¹, with the learning rate η and commuting matrices; the text "
        "prints ηK.",
        planned="needs the noisy quadratic model",
    ),
    Claim(
        id="L16", paper=_PAPER, kinds=(_Q,), where="Section 2",
        statement="What holds for the loss on the training set typically holds on the test set as well.",
        outcome="stated without figures", planned="needs both curves for every network of a sweep",
    ),
    Claim(
        id="L17", paper=_PAPER, kinds=(_S,), where="Abstract; Section 2.2",
        statement="Networks that violate MLI can be produced systematically, by forcing the weights to move far from "
        "their initialisation.",
        outcome="violators produced by adaptive optimisers and large learning rates", planned=_SWEEP,
    ),
    Claim(
        id="L18", paper=_PAPER, kinds=(_S,), where="Section 2.2",
        statement="SGD moves the parameters less far from initialisation than adaptive methods do, and small learning "
        "rates less far than large ones.",
        outcome="offered as the reason for L6", planned=_SWEEP,
    ),
    Claim(
        id="L19", paper=_PAPER, kinds=(_S,), where="Sections 1 and 2.3",
        statement="Networks that violate MLI can generalise as well as networks that satisfy it.",
        outcome="violators perform well on training and test data", planned=_SWEEP,
    ),
)
