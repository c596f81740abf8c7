"""The model card (`README.md` of the adapter), in the form that model hubs and people read."""

from job.card.card import CURVE_NAME, model_card
from job.card.facts import CardFacts, hub_name

__all__ = ["CURVE_NAME", "CardFacts", "hub_name", "model_card"]
