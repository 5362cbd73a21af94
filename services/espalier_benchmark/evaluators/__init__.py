"""Evaluators of free text: log-probabilities, lexical measures with their formulas, a model as judge.

A measure that is a proxy says so and names its source; what cannot be measured is an abstention, never a number.
"""
