"""General tools: files, checksums, devices, executors, progress, HTML templates.

May import `config`. Start with `files` (atomic writes, folder locks) and `outputs` (folders that a command fills).
`distributed` holds the collectives of several training processes, `cuda_graphs` graph capture, `threads` the
number of CPU threads; these three, `device` and `tensors` import torch.
"""
