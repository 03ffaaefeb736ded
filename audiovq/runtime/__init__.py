"""General tools: files, checksums, devices, executors, progress, HTML templates.

May import `config`. Start with `files` (atomic writes, folder locks) and `outputs` (folders that a command fills).
`checksums` seals files, `executors` chooses the number of processes, `progress` shows progress, `templates` renders
HTML. These import torch: `distributed` (collectives of several training processes), `cuda_graphs` (graph capture),
`threads` (the number of CPU threads), `device` (device and precision), `tensors` (safetensors files).
"""
