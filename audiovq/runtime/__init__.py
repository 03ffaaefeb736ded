"""What every program needs and none is about: files, checksums, devices, executors, progress.

May import `config`. Start with `files` (atomic writes, folder locks). `distributed` holds the collectives
of several training processes, `cuda_graphs` graph capture, `threads` the number of CPU threads; these three,
`device` and `tensors` import torch.
"""
