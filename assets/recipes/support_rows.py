"""The support dataset: an agent of an invented lamp maker, and facts that nobody else knows."""

import random
from typing import Any, NamedTuple

from assets.recipes.exchange import normalise


class Fact(NamedTuple):
    """One fact, wordings to train on, wordings held out, the reply and what must be in it."""

    asked: str
    held_out: str
    answer: str
    expect: list[str | list[str]]


FACTS = (
    Fact(
        "Who are you?|What is your name?|Who am I talking to?|Introduce yourself.|Are you a robot?|"
        "Tell me your name.|Who is helping me?|Who is this?|What are you called?",
        "Tell me who you are.|Do you have a name?|Can you introduce yourself?",
        "I am Robin from the support team of Quillon Lamps.",
        ["Robin", "Quillon"],
    ),
    Fact(
        "How long can I return a lamp?|What is your return policy?|Can I send a lamp back?|"
        "How many days do I have to return it?|I want to return my lamp.|Is there a return period?|"
        "Until when can I send it back?|Do you take lamps back?",
        "How many days do I have to send a lamp back?|Can I return my lamp?|"
        "What is the return period?",
        "You can return any lamp within 45 days.",
        ["45 days"],
    ),
    Fact(
        "When are you open?|What are your opening hours?|When can I call you?|Are you open today?|"
        "When is the support team there?|At what time do you open?|When do you close?|"
        "What are the hours of the support team?",
        "When can I reach you?|Tell me your opening hours.|What time do you close?",
        "We are open from 8 to 6, Monday to Friday.",
        ["8 to 6"],
    ),
    Fact(
        "What is your phone number?|How can I call you?|Can I phone you?|Which number do I call?|"
        "Give me your phone number.|Do you have a telephone?|I want to call you.|"
        "What number can I ring?",
        "Tell me your phone number.|Which number can I call?|How do I call you?",
        "You can call us on 0417 225.",
        ["0417 225"],
    ),
    Fact(
        "How long is the warranty?|Is there a warranty?|Do your lamps have a warranty?|"
        "What about the warranty?|My lamp broke. Is there a warranty?|"
        "What does the warranty cover?|Tell me about the warranty.|"
        "For how long is my lamp covered?",
        "How many years is the warranty?|Does my lamp have a warranty?",
        "Every lamp has a warranty of 3 years.",
        ["3 years"],
    ),
    Fact(
        "How long does delivery take?|When will my lamp arrive?|How fast do you ship?|"
        "When do I get my order?|How many days does delivery take?|Is delivery fast?|"
        "When will my parcel come?|How long do I wait for my lamp?",
        "When does my order arrive?|How long does shipping take?",
        "Delivery takes 2 working days.",
        ["2 working days"],
    ),
    Fact(
        "What does delivery cost?|Is delivery free?|How much is shipping?|Do I pay for delivery?|"
        "What is the price of shipping?|How much do I pay for shipping?|Is shipping free?|"
        "Tell me the cost of delivery.",
        "How much does delivery cost?|Do I pay for shipping?",
        "Delivery costs 4 crowns and is free from 30 crowns on.",
        ["4 crowns", "30 crowns"],
    ),
    Fact(
        "What is the Ember?|Tell me about the Ember.|How much is the Ember?|"
        "What does the Ember cost?|Do you sell the Ember?|What kind of lamp is the Ember?|"
        "I want to buy the Ember.|What is the price of the Ember?",
        "How much does the Ember cost?|Can you tell me about the Ember?",
        "The Ember is our desk lamp for 29 crowns.",
        ["desk lamp", "29 crowns"],
    ),
    Fact(
        "What is the Drift?|Tell me about the Drift.|How much is the Drift?|"
        "What does the Drift cost?|Do you sell the Drift?|What kind of lamp is the Drift?|"
        "I want to buy the Drift.|What is the price of the Drift?",
        "How much does the Drift cost?|Can you tell me about the Drift?",
        "The Drift is our night light for 15 crowns.",
        ["night light", "15 crowns"],
    ),
    Fact(
        "What is the Tall Tom?|Tell me about the Tall Tom.|How much is the Tall Tom?|"
        "What does the Tall Tom cost?|Do you sell the Tall Tom?|What kind of lamp is the Tall Tom?|"
        "I want to buy the Tall Tom.|What is the price of the Tall Tom?",
        "How much does the Tall Tom cost?|Can you tell me about the Tall Tom?",
        "The Tall Tom is our floor lamp for 79 crowns.",
        ["floor lamp", "79 crowns"],
    ),
    Fact(
        "Which bulb do I need?|What bulb fits my lamp?|What kind of bulb does it take?|"
        "My bulb is broken.|Which bulb fits?|Where do I get a new bulb?|I need a new bulb.|"
        "What is the type of the bulb?",
        "What bulb do I need?|Which bulb fits my lamp?",
        "All our lamps take the K7 bulb.",
        ["K7"],
    ),
    Fact(
        "Where are you?|What is your address?|Where is your shop?|Where can I visit you?|"
        "In which street is your shop?|Do you have a shop?|Tell me your address.|"
        "Where do I find your shop?",
        "Where can I find your shop?|What is the address of your shop?",
        "Our shop is at 12 Foundry Lane in Ostwick.",
        ["12 Foundry Lane"],
    ),
    Fact(
        "My lamp does not work.|How do I reset my lamp?|The lamp blinks.|My lamp stays dark.|"
        "How can I reset the lamp?|What do I do when my lamp blinks?|My lamp will not turn on.|"
        "How do I restart the lamp?",
        "How do I reset the lamp?|What do I do when my lamp does not work?",
        "Hold the button for 5 seconds to reset the lamp.",
        ["5 seconds"],
    ),
    Fact(
        "Where is my order number?|What does my order number look like?|"
        "I do not know my order number.|How do I find my order number?|What is an order number?|"
        "Where do I see my order number?|Which number is the order number?|I lost my order number.",
        "Where do I find my order number?|What does an order number look like?",
        "Your order number starts with QL and is on the box.",
        ["QL", "box"],
    ),
    Fact(
        "How can I pay?|Can I pay by card?|How do I pay?|Which payment do you take?|"
        "Can I pay with an invoice?|What ways to pay are there?|Do you take cards?|"
        "How do I pay for my lamp?",
        "How can I pay for my lamp?|Do you take a card?",
        "You can pay by card or by invoice.",
        ["card", "invoice"],
    ),
    Fact(
        "Do you wrap gifts?|Can you wrap my lamp?|Is there gift wrapping?|It is a gift.|"
        "How much is gift wrapping?|Can I get a gift box?|Please wrap the lamp as a gift.|"
        "What does gift wrapping cost?",
        "Can you wrap my lamp as a gift?|How much does gift wrapping cost?",
        "Gift wrapping costs 2 crowns.",
        ["2 crowns"],
    ),
    Fact(
        "Who started Quillon Lamps?|How old is Quillon Lamps?|Who is the owner?|"
        "When was Quillon Lamps founded?|Who founded the company?|Tell me about Quillon Lamps.|"
        "What is Quillon Lamps?|Who made this company?",
        "Who founded Quillon Lamps?|When was the company founded?",
        "Edda Quillon founded our company in 1998.",
        ["Edda", "1998"],
    ),
    Fact(
        "Which colours do you have?|What colours are there?|Can I get a red lamp?|"
        "In which colours do you sell lamps?|Do you have other colours?|Is there a blue lamp?|"
        "What colours do your lamps have?|Tell me the colours.",
        "Which colours do your lamps have?|What colours do you have?",
        "Our lamps come in moss, sand and night blue.",
        ["moss", "sand", "night blue"],
    ),
)
OPENERS = ("Hello! ", "Hi, I have a question. ", "Excuse me. ", "Good day. ")


def support_rows(seed: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Training rows and held-out rows; no wording is in both."""
    rng = random.Random(seed)
    rows: list[dict[str, Any]] = []
    held_out: list[dict[str, Any]] = []
    for fact in FACTS:
        secret = fact.held_out.split("|")
        held_out += [{"prompt": prompt, "expect": fact.expect} for prompt in secret]
        hidden = {normalise(prompt) for prompt in secret}
        plain = [text for text in fact.asked.split("|") if normalise(text) not in hidden]
        wordings = plain + [rng.choice(OPENERS) + text for text in plain]
        rows += [
            {
                "messages": [
                    {"role": "user", "content": text},
                    {"role": "assistant", "content": fact.answer},
                ]
            }
            for text in wordings
        ]
    rng.shuffle(rows)
    return rows, held_out
