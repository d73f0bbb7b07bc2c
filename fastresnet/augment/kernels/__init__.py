"""What happens to a batch of images between the dataset and the model, as kernels that all mean the same.

`reference` says what is meant, `fused` and `rows` say it fast for a CPU, `triton_augment` for a GPU.
Refuses to draw: random choices are arguments.
"""
