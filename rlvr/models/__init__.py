"""Where a policy comes from: a tiny one built on the spot, a fetched one, a folder or a hub id. No torch at import."""

from rlvr.models.catalogue import MODELS, FetchableModel
from rlvr.models.fetch import ModelUnavailable, fetch
from rlvr.models.resolve import resolve_model
from rlvr.models.tiny import build_tiny_policy, train_tokenizer
from rlvr.models.weights import share_weights, weights_fingerprint

__all__ = [
    "MODELS",
    "FetchableModel",
    "ModelUnavailable",
    "build_tiny_policy",
    "fetch",
    "resolve_model",
    "share_weights",
    "train_tokenizer",
    "weights_fingerprint",
]
