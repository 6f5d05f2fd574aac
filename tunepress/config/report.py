"""`report`: what the report says beside the figures."""

from dataclasses import dataclass


@dataclass
class Report:
    """Words for the report's and the model card's heading."""

    title: str  # of the report and the model card
