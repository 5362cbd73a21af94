"""Accuracy packs: questions with answers that a program can check, each with a manifest, all of them offline.

No network may enter; what a model answered is hostile here and only ever runs inside the sandbox.
"""
