"""From a checkpoint to a bundle: training, export, quantization, verification. Never imported while serving."""
