"""A real Home Assistant under traffic, faults and reloads for as long as told.

`script/soak` starts it. What it holds must be the same at the end as after the first
minutes: memory, tasks, timers, descriptors.
"""
