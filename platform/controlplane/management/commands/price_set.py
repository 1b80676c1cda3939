"""``manage.py price_set``: what a million tokens of a base model cost from now on."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from billing.money import nano_per_token, usd_per_million
from controlplane.management.plain import PlainCommand
from controlplane.prices import base_price_set
from tenants.access import Caller


class Command(PlainCommand):
    help = (
        "Set the price of a base model, in dollars per million tokens. Gateways have it within "
        "moments; calls under way keep theirs. A base model without a price is not served."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("base", help="the base model's short name, as /api/v1/base-models")
        parser.add_argument("--input", required=True, metavar="USD")
        parser.add_argument("--output", required=True, metavar="USD")
        parser.add_argument("--cached-input", metavar="USD", help="default: as --input")

    def handle(self, *_args: Any, **options: Any) -> None:
        cached = options["cached_input"] or options["input"]
        price = base_price_set(
            options["base"],
            caller=Caller.system("price_set"),
            input_nano=nano_per_token(options["input"], param="--input"),
            cached_input_nano=nano_per_token(cached, param="--cached-input"),
            output_nano=nano_per_token(options["output"], param="--output"),
        )
        self.say(
            f"{price.base}: a million tokens cost {usd_per_million(price.input_nano)} USD as input,"
            f" {usd_per_million(price.cached_input_nano)} as cached input and"
            f" {usd_per_million(price.output_nano)} as output. Version {price.id}."
        )
