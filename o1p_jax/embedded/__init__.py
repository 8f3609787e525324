"""The default model and problem sets: small enough to ship and to run in minutes on any machine.

`problems.py` makes the problems, `traces.py` the long solutions that `pretrain.py` teaches to the model in `model/`.
"""
