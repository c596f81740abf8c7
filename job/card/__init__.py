"""The model cards (`README.md` of the adapter and of merged weights), in the form that model hubs
and people read."""

from job.card.card import CURVE_NAME, merged_card, model_card
from job.card.facts import CardFacts, hub_name

__all__ = ["CURVE_NAME", "CardFacts", "hub_name", "merged_card", "model_card"]
