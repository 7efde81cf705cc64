"""The claims of Tao, Li, Zhan 2024, "MLI Formula: A Nearly Scale-Invariant Solution with Noise Perturbation"."""

from __future__ import annotations

from mli_check.catalogue.records import Claim, Kind

_PAPER = "tao2024"
_E, _S, _Q, _D = Kind.IDENTITY, Kind.PROPORTION, Kind.CURVE, Kind.DEFINITION

_TIES = "At α = 0 all logits tie, so the error there is that of chance."
_EVERY_DRAW = "Read strictly, T2 (every draw is monotone) and T21 (95 of 100 are) contradict each other."
_VIOLATES = (
    "A curve violates MLI when Δ, the largest rise of the loss above its running minimum (L11), exceeds 1e-3 nats."
)
_NSI_LAST_BIAS = (
    "Taking αθ for the normalised scaling leaves out the bias of the last layer; Section 4.1.4 and Appendix A.5 "
    "say so, Appendix A.2 does not."
)

CLAIMS: tuple[Claim, ...] = (
    Claim(
        id="T1", paper=_PAPER, kinds=(_D, _Q), where="Section 3.1, Equation 1; Section 3.2, Figure 2",
        statement="Monotonic linear interpolation (MLI): along (1−α)θ₀ + αθ_F, the straight line from a network's own "
        "initialisation θ₀ to its trained parameters θ_F, the loss and the error never rise as α goes from 0 to 1.",
        outcome="test error is monotone for FCN4/MNIST, VGG8 without BN/SVHN, VGG16-BN/CIFAR-10, ResNet20/CIFAR-100",
    ),
    Claim(
        id="T2", paper=_PAPER, kinds=(_Q,), where="Section 3.2, Equation 2, Figure 2",
        statement="The error stays monotone when the line starts at an unrelated random initialisation θ₀′ instead of "
        "the one that training started from, whichever θ₀′ is drawn.",
        outcome="several draws in each of four settings, all monotone", reading=_EVERY_DRAW,
    ),
    Claim(
        id="T3", paper=_PAPER, kinds=(_Q,), where="Section 3.2, Figure 2",
        statement="For a network with batch normalisation the error curves from different unrelated initialisations to "
        "the same θ_F have nearly the same shape.",
        outcome="seen for VGG16-BN/CIFAR-10 and ResNet20/CIFAR-100",
        reading="“Nearly the same shape” is read as a mean distance of at most 0.05 between curves that are scaled to "
        "fall from 1 to 0.",
    ),
    Claim(
        id="T4", paper=_PAPER, kinds=(_Q,), where="Section 3.2, Equation 3, Figure 2",
        statement="With the start replaced by zero, that is along αθ_F, the error still never rises as α goes from "
        "0 to 1.",
        outcome="test error is monotone in all four settings",
        reading="The term left out of the line is (1−α)θ₀; the text prints θ_F in it. " + _TIES,
    ),
    Claim(
        id="T5", paper=_PAPER, kinds=(_Q,), where="Sections 3.2 and 5.1, Figure 2",
        statement="αθ_F already performs about as well as θ_F at a small α, and most clearly so in networks with batch "
        "normalisation.",
        outcome="FCN4/MNIST falls steeply for α in about [0.1, 0.3]; the BN networks are near θ_F at a small α",
        reading="“Small” is read as α = 0.3, “about as well” as at most 5% of the total drop still to come.",
    ),
    Claim(
        id="T6", paper=_PAPER, kinds=(_Q,), where="Section 3.2, finding 3, Figure 2",
        statement="On all three paths (own initialisation, unrelated initialisation, zero) the initial plateau of the "
        "error is shorter in networks with batch normalisation than in networks without.",
        outcome="shorter plateaus for VGG16-BN and ResNet20 than for FCN4 and VGG8",
    ),
    Claim(
        id="T7", paper=_PAPER, kinds=(_Q,), where="Appendix A.1, Figure 10",
        statement="What holds for networks trained from scratch also holds for pre-trained networks after fine-tuning: "
        "the error is monotone from the pre-trained parameters, from unrelated initialisations and from zero.",
        outcome="monotone for ResNet50 fine-tuned on CUB200 and RoBERTa fine-tuned on AG News",
        reading="At standard scale pre-trained networks that package registries hold stand in for these: "
        "EfficientNet-Lite0 (BN) on CIFAR-10 and MiniLM-L6 (layer normalisation) on ham against spam. " + _TIES,
    ),
    Claim(
        id="T8", paper=_PAPER, kinds=(_Q,), where="Appendix A.1, Figure 10",
        statement="RoBERTa, which uses layer normalisation, is less scale invariant than ResNet50, which uses batch "
        "normalisation: αθ_F departs further from θ_F.",
        outcome="RoBERTa lacks ResNet50's marked scale invariance; layer normalisation is the suspected cause",
        reading="αθ_F departs by the mean over α of its error above θ_F's, a share of the total drop. The suspected "
        "cause is judged at quick scale, on the same small network with layer normalisation and with BN.",
    ),
    Claim(
        id="T9", paper=_PAPER, kinds=(_Q,), where="Appendix C, Listing 1",
        statement="For a linear softmax classifier without intercept, fitted to the scikit-learn digits, loss and "
        "error fall on the line from Gaussian noise to the fitted weights.",
        outcome="loss and error, evaluated on the fitted data at 21 points, are said to fall monotonically",
    ),
    Claim(
        id="T10", paper=_PAPER, kinds=(_E,), where="Section 4.1.1, Equations 6 and 7",
        statement="Vanilla scale invariance (VSI): multiplying weight and bias of a ReLU layer by a > 0 and the next "
        "layer's weight by 1/a leaves the network's function unchanged.",
        outcome="exact identity",
    ),
    Claim(
        id="T11", paper=_PAPER, kinds=(_E,), where="Section 4.1.2, Equations 8 and 9",
        statement="Generalised scale invariance (GSI): in a ReLU network without biases and BN, scaling the weights of "
        "layers l to l+r by positive factors multiplies the last of their outputs by the product of the factors; "
        "dividing the next weight by that product restores the function.",
        outcome="exact identity",
    ),
    Claim(
        id="T12", paper=_PAPER, kinds=(_E,), where="Section 4.1.2, Equation 10",
        statement="GSI over all layers with nothing restored multiplies the logits by the product of the factors, so "
        "the error stays the same while the loss does not.",
        outcome="exact identity for the error; a marked change of the cross-entropy",
        reading="The product of the factors has to be positive. " + _TIES,
    ),
    Claim(
        id="T13", paper=_PAPER, kinds=(_E,), where="Section 4.1.2, Equation 11",
        statement="After GSI over all layers, a softmax temperature equal to the product of the factors gives back the "
        "original cross-entropy.",
        outcome="exact identity", reading="The product of the factors has to be positive.",
    ),
    Claim(
        id="T14", paper=_PAPER, kinds=(_E,), where="Section 4.1.3, Equation 12",
        statement="In a network with biases and without BN, scaling weight and bias of every layer alike is not "
        "homogeneous: from the second layer on, no common factor can be taken out of the activation.",
        outcome="the scaled output differs from any multiple of the original one",
    ),
    Claim(
        id="T15", paper=_PAPER, kinds=(_E,), where="Section 4.1.3, Equations 13 to 15",
        statement="Rectified scale invariance (RSI): when the bias of each scaled layer takes the product of all "
        "factors up to that layer, the output is multiplied by the whole product and the next weight can restore the "
        "function.",
        outcome="exact identity",
        reading="The bias factor before Equation 13 replaces α_{l+1} (α_l is printed), and the bias in Equation 15 is "
        "b_{l+r+1} (b_{l+r} is printed).",
    ),
    Claim(
        id="T16", paper=_PAPER, kinds=(_E,), where="Section 4.1.4, Equations 16 to 18",
        statement="Normalised scale invariance (NSI): batch normalisation with batch statistics and η = 0 does not see "
        "the scale of the layer that feeds it.",
        outcome="exact identity once η is neglected",
        reading="Equation 18 needs the order convolution, BN, ReLU; its α_t is α_l, and scaling turns η into η/α². "
        + _NSI_LAST_BIAS,
    ),
    Claim(
        id="T17", paper=_PAPER, kinds=(_E,), where="Section 4.1.4",
        statement="Fully connected layers without BN that follow convolutions with BN depart from NSI, but still obey "
        "RSI.",
        outcome="stated for networks of convolutions with BN and a fully connected head", reading=_NSI_LAST_BIAS,
    ),
    Claim(
        id="T18", paper=_PAPER, kinds=(_Q,), where="Section 4.1.4",
        statement="In a network with biases and without BN, how far αθ performs from θ is set by the size of the "
        "biases; without biases, or with BN, the two perform alike.",
        outcome="argued from Equation 12, tested in Appendix A.2 only", reading=_NSI_LAST_BIAS,
    ),
    Claim(
        id="T19", paper=_PAPER, kinds=(_E, _Q), where="Appendix A.2, Figure 11",
        statement="For a 128-512-128 ReLU network whose last biases are set to one constant, the mean squared "
        "difference between the outputs of αθ_F and of RSI(θ_F, α) grows with that constant and falls as α grows.",
        outcome="grows with the bias, falls with α",
        reading="With RSI not restored the difference is α²(1−α)²b², which peaks at α = 1/2; falling with α fits "
        "outputs that are restored.",
    ),
    Claim(
        id="T20", paper=_PAPER, kinds=(_Q,), where="Section 4.2, Equation 19",
        statement="For a fixed noise ε, the error of αθ_F + (1−α)ε rises as α falls from 1 to 0; MLI is the case ε = "
        "θ₀.",
        outcome="seen for every noise of Section 5.1 and most of Appendix A.3; not claimed for arbitrary ε",
        reading="ε is drawn from the four families of Appendix A.3. Binary initialisation, which the paper does not "
        "define, is read as plus or minus the standard deviation of Kaiming's.",
    ),
    Claim(
        id="T21", paper=_PAPER, kinds=(_S,), where="Appendix A.3, Figure 12 (left)",
        statement="Of 100 test-error curves from noise drawn by common initialisation methods (binary, Kaiming "
        "uniform, Kaiming normal, orthogonal) to the same trained network, nearly all are monotone.",
        outcome="95 of 100 noise curves are monotone",
        reading=_EVERY_DRAW + " The paper does not say what rise it lets pass; here it is 5% of the total drop, and "
        "the share of curves as a function of that margin is recorded. “Nearly all” is read as more than 85 of 100.",
    ),
    Claim(
        id="T22", paper=_PAPER, kinds=(_Q,), where="Section 4.2; Appendix A.3, Figure 12 (right)",
        statement="With the negative gradient of the loss at θ_F as noise, ε = −∇L(θ_F), the test error rises slightly "
        "near the end of the path, so the noise hypothesis does not cover every ε.",
        outcome="a slight rise of the test error close to α = 1",
        reading="The path is αθ_F + (1−α)ε; A.3 prints θ₀ for ε. The claim is about the end of the path only, read as "
        "from 0.9 on: slight is any mean rise above zero, unless it is surely less than a tenth of a point.",
    ),
    Claim(
        id="T23", paper=_PAPER, kinds=(_D,), where="Section 5.1, Definition 5.1, Equation 20",
        statement="The rapid-descent set A of a curve holds the points from which the next step takes at least the "
        "share τ of the total drop; it spans the interval [α_S, α_E], and α_S is the length of the plateau before it.",
        outcome="τ = 0.01 throughout",
        reading="The denominator of Equation 20 is the total drop J(α=0) − J(α=1), not that of the first step. α_S is "
        "where the first rapid step starts, α_E where the last one ends. With more than 1/τ steps the set can be "
        "empty: resample to 50 steps, or say so.",
    ),
    Claim(
        id="T24", paper=_PAPER, kinds=(_D,), where="Section 5.1, Definition 5.2, Equation 21",
        statement="The relative scale of initial and trained parameters is δ = M(θ₀)/M(θ_F), where M is the mean "
        "absolute value over all parameters.",
        outcome="a definition",
    ),
    Claim(
        id="T25", paper=_PAPER, kinds=(_Q,), where="Section 5.1.1, Figure 3; Appendix A.4.1, Figure 13",
        statement="With θ₀ multiplied by a factor and θ_F kept, the error is monotone at every relative scale δ; α_S "
        "grows with δ, while the length α_E − α_S of the rapid descent stays about the same.",
        outcome="monotone at every δ; longer plateaus and an almost constant descent length as δ grows",
        reading="α_S and α_E are read as in T23: a step is rapid when it takes at least τ of the total drop, and the "
        "interval runs from the start of the first such step to the end of the last. “About the same” is read as a "
        "change of at most 0.1 of α while δ goes from 0.1 to 10.",
    ),
    Claim(
        id="T26", paper=_PAPER, kinds=(_Q,), where="Section 5.1.2, Figure 3; Appendix A.4.2, Figure 13",
        statement="With every initial parameter set to one constant that gives a chosen δ, the error is still monotone "
        "on the way to θ_F.",
        outcome="monotone at every δ",
    ),
    Claim(
        id="T27", paper=_PAPER, kinds=(_Q,), where="Section 5.2, Figure 4",
        statement="Whether the running statistics of BN are frozen, interpolated, or reset and recomputed on training "
        "data at each point, the error is monotone; the first two give longer plateaus.",
        outcome="monotone under all three policies; longer plateaus when frozen or interpolated",
    ),
    Claim(
        id="T28", paper=_PAPER, kinds=(_Q,), where="Section 5.2, Figure 5",
        statement="From a checkpoint within training to θ_F, interpolating the running statistics of BN produces an "
        "error barrier; resetting them and warming up over one epoch of training data gives a monotone curve.",
        outcome="barriers with interpolated statistics, monotone after reset and warm-up",
        reading="A barrier is a mean error over α from 0.1 to 0.5 above the checkpoint's own, asked of checkpoints "
        "whose error is below half of chance. A rise counts from 5% of the way from θ_F's error to chance, since the "
        "drop from a late checkpoint is tiny.",
    ),
    Claim(
        id="T29", paper=_PAPER, kinds=(_E, _Q), where="Section 5.3, Figure 6; Appendix A.5, Figure 14",
        statement="The error of GSI(θ_F, α) without biases and of RSI(θ_F, α) with biases does not depend on α > 0, in "
        "networks with and without BN.",
        outcome="flat curves for VGG16/CIFAR-10 and LeNet/SVHN, as predicted", reading=_TIES,
    ),
    Claim(
        id="T30", paper=_PAPER, kinds=(_Q,), where="Section 5.3, Figure 6",
        statement="On the zero path αθ_F a network with biases and BN has a shorter error plateau than the same "
        "network with biases alone.",
        outcome="shorter with BN for VGG16/CIFAR-10, put down to NSI",
        reading="The plateau ends where the error has fallen by a tenth of its total drop. " + _NSI_LAST_BIAS,
    ),
    Claim(
        id="T31", paper=_PAPER, kinds=(_Q,), where="Section 5.3, Figure 6; Appendix A.5, Figure 14",
        statement="With noise of constant size, the error of αθ_F + θ₀ falls as α grows: the scaled network becomes "
        "more robust to noise.",
        outcome="falls with α for VGG16/CIFAR-10 and LeNet/SVHN",
        reading="The error may nowhere rise by more than 5% of its total drop on the line from θ₀ to θ_F + θ₀.",
    ),
    Claim(
        id="T32", paper=_PAPER, kinds=(_Q,), where="Appendix A.5, Figure 14",
        statement="In a LeNet with BN after convolutions, the biases of the fully connected layers weaken NSI, while "
        "RSI still holds.",
        outcome="as stated, LeNet/SVHN", reading=_NSI_LAST_BIAS,
    ),
    Claim(
        id="T33", paper=_PAPER, kinds=(_Q,), where="Section 5.4, Figure 7; Appendices A.6 and B.3, Figure 15",
        statement="Training with a large learning rate, or with Adam, produces networks whose train loss is not "
        "monotone on the line from θ₀ to θ_F; SGD with a small learning rate does not.",
        outcome="violations for ResNet20/CIFAR-100 among SGD and Adam with learning rates 0.01, 0.03, 0.1, 0.3",
        reading=_VIOLATES,
    ),
    Claim(
        id="T34", paper=_PAPER, kinds=(_Q,), where="Section 5.4, Figure 8; Appendix A.6, Figure 16",
        statement="The biases of networks that violate MLI spread more widely around zero than those of networks that "
        "satisfy it.",
        outcome="wider bias distributions with large learning rates and with Adam",
        reading="Shifts of BN layers and biases of other layers are reported apart.",
    ),
    Claim(
        id="T35", paper=_PAPER, kinds=(_Q,), where="Section 5.5, Figure 9; Appendix A.7, Figures 17 to 19",
        statement="On the surface αθ_F + βθ₀ with α in [0, 1] and β in [−1, 1], the diagonal from (0, 1) to (1, 0) is "
        "the MLI curve and is monotone; the error is asymmetric in β, more so in networks with BN.",
        outcome="monotone diagonal and marked asymmetry in all four settings",
        reading="The asymmetry is between the two sides of β = 0; the text prints α = 0. It is read as the size of the "
        "mean difference between the error at β < 0 and at β > 0, over α > 0; less than 2 points count as none.",
    ),
    Claim(
        id="T36", paper=_PAPER, kinds=(_Q,), where="Abstract; Sections 4.2 and 5.3",
        statement="MLI is determined jointly by scale invariance and robustness to noise: neither alone predicts the "
        "error curve, the two together do.",
        outcome="the central hypothesis, said to be confirmed by Figures 6 and 14",
        reading="Scale invariance alone predicts the error of αθ_F, noise alone that of θ_F + ((1−α)/α)θ₀′, and both "
        "the product of the shares of right answers that each keeps. “Predicts” is read as a mean distance of at most "
        "0.05 of the total drop.",
    ),
    Claim(
        id="T37", paper=_PAPER, kinds=(_Q,), where="Section 5.4",
        statement="The spread of the biases causes violations rather than going along with them: between the same end "
        "points of a violator, interpolating the biases homogeneously, with the exponents of RSI, removes the "
        "violation.",
        outcome="the paper argues the cause; the intervention is not in it",
        reading="A bias that follows k layers moves as (1−α)^k b₀ + α^k b_F. " + _VIOLATES,
    ),
    Claim(
        id="T38", paper=_PAPER, kinds=(_Q,), where="Section 5.5, Figure 9",
        statement="At α = 1 the surface of T35 shows robustness to noise: the error of θ_F + βθ₀ rises with the size "
        "of β.",
        outcome="shown for ResNet20/CIFAR-100",
        reading="The error has to fall on the way from θ_F + θ₀ and from θ_F − θ₀ to θ_F, and the whole of θ₀, of "
        "either sign, has to add at least something to it; less than 2 points count as nothing.",
    ),
)
