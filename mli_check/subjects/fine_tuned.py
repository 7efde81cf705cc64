"""Pre-trained networks that are fine-tuned: S5 of Tao et al. 2024 (Appendix B.2), and what package registries hold."""

from __future__ import annotations

from mli_check.settings import DataSetting, ModelSetting, Recipe, Setting
from mli_check.subjects.subject import Subject, setting, smoke

EFFICIENTNET = ModelSetting(name="efficientnet-lite0", init="pretrained", batch_norm=True)
MINILM = ModelSetting(name="minilm", init="pretrained", layer_norm=True)
RESNET50 = ModelSetting(name="resnet50", init="pretrained", batch_norm=True)
ROBERTA = ModelSetting(name="roberta", init="pretrained", layer_norm=True)

_GROUP = "fine-tuned"  # of the subjects that T8 compares
_IMAGES_RECIPE = Recipe(
    optimiser="sgd", lr=0.02, momentum=0.9, weight_decay=1e-4, epochs=2, batch_size=50, milestones=(1,)
)
_TEXTS_RECIPE = Recipe(optimiser="adam", lr=3e-4, weight_decay=1e-4, epochs=1, batch_size=25, schedule="linear")
_S5_IMAGES = Recipe(
    optimiser="sgd", lr=1e-3, momentum=0.9, weight_decay=1e-4, epochs=95, batch_size=32, milestones=(30, 60, 90),
    augmentation="crop-flip", precision="bfloat16",
)  # fmt: skip
_S5_TEXTS = Recipe(
    optimiser="adam", lr=5e-5, weight_decay=1e-4, epochs=5, batch_size=32, schedule="linear", precision="bfloat16"
)
_TEXTS = "no dropout; the mean over tokens goes to one linear layer"

FINE_TUNED = (  # small enough to be trained and measured on two CPU cores, in two hours or so
    Subject(
        name="efficientnet-cifar10",
        title="EfficientNet-Lite0 (BN) fine-tuned on 4,000 images of CIFAR-10",
        scale="standard",
        group=_GROUP,
        setting=Setting(data=DataSetting(name="cifar10", subset=4000), model=EFFICIENTNET, recipe=_IMAGES_RECIPE),
        test_examples=1000,
        calibration_examples=200,
        points=21,
        choices="stands in for ResNet50 on CUB200; images are enlarged to 96 pixels; no dropout, no drop-connect",
    ),
    Subject(
        name="minilm-mail",
        title="MiniLM-L6 (LN) fine-tuned on 1,000 mails, ham against spam",
        scale="standard",
        group=_GROUP,
        setting=Setting(data=DataSetting(name="mail", subset=1000), model=MINILM, recipe=_TEXTS_RECIPE),
        test_examples=500,
        points=21,
        choices=f"stands in for RoBERTa on AG News; the first 64 tokens of each mail; {_TEXTS}",
    ),
)
FINE_TUNED_SMOKE = tuple(smoke(subject, examples=100, measured=40, points=4) for subject in FINE_TUNED)
FINE_TUNED_PAPER = (
    Subject(
        name="resnet50-cub200",
        title="S5: ResNet50 (BN) fine-tuned on CUB200",
        scale="paper",
        group=_GROUP,
        setting=setting("cub200", RESNET50, _S5_IMAGES),
        calibration_examples=1000,
        choices="the first ImageNet weights of torchvision, photographs cut to 224 pixels, batches of 32, random crops "
        "after padding by 4 pixels and mirror images, bfloat16 autocast",
    ),
    Subject(
        name="roberta-ag-news",
        title="S5: RoBERTa (LN) fine-tuned on AG News",
        scale="paper",
        group=_GROUP,
        setting=setting("ag-news", ROBERTA, _S5_TEXTS),
        choices=f"the base model, batches of 32, the first 128 tokens of each text, bfloat16 autocast; {_TEXTS}",
    ),
)
