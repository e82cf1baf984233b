"""The connect capability: raw TCP to where a connect rule allows it. `guarded` decides and dials, `stream` is what the
plugin gets; the second knows nothing of the first, so that a sealed worker needs no more than that.
"""
