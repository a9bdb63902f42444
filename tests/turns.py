"""Turns on the CPU as on a GPU: one at a time, shared by images that wait for it."""

from __future__ import annotations

import threading

import jax

from n4ax_bids.runtime import device, sharing

CPU = jax.local_devices(backend="cpu")[0]


def share_turns(monkeypatch):
    """Let turns on the CPU be shared, one at a time."""
    monkeypatch.setattr(sharing, "_shares", lambda where: True)
    monkeypatch.setattr(sharing, "_queues", {})
    monkeypatch.setitem(device._turns, CPU, threading.Semaphore(1))


def n_waiting():
    """Return how many images wait, with the one whose thread leads the next turn."""
    queue = sharing._queues.get(CPU, sharing._Queue())
    return queue.busy + len(queue.waiting)
