"""People and places, so that the demo reads like life."""

from __future__ import annotations

from random import Random

FIRST = (
    "Maya Jonas Aiko Lena Mateo Priya Tom Zuri Elif Noah Ines Ravi Sofia Kofi Hana Marek Clara Diego Amara Finn "
    "Leila Oskar Yara Hugo Nadia Samir Greta Paulo Mina Theo Rosa Emil Tara Bruno Saskia Omar Wanda Felix Ada Luca"
)
LAST = (
    "Okafor Weber Tanaka Silva Novak Rossi Haddad Larsen Mwangi Kaya Moreau Patel Lindqvist Costa Becker Sato Duarte "
    "Kowalski Nguyen Fischer Adeyemi Marino Park Jensen Vargas Meyer Rahimi Dubois Horvat Brandt"
)
PLACES = (
    "Lisbon Kyoto Oaxaca Tromsø Marrakesh Ljubljana Cusco Porto Hanoi Reykjavik Palermo Tbilisi Zanzibar Bergen Cádiz "
    "Vilnius Chiloé Fès Naxos Kraków Gdańsk Valparaíso Skye Trieste Sarajevo Mostar Jaipur Hobart Bologna Kotor"
)
SHAPES = (
    "{} in June, Weekend in {}, {} by train, Slow days in {}, {} and the coast, Birthday in {}, {} on a budget, "
    "Winter in {}, {} with friends, Back to {}, Three days in {}, {} on foot, New Year in {}, {} at last"
)
GATHERINGS = "{} marathon, {} film festival, {} carnival, Conference in {}, {} jazz week"


def person(random: Random) -> str:
    return f"{random.choice(FIRST.split())} {random.choice(LAST.split())}"


def trip(random: Random) -> str:
    return random.choice(SHAPES.split(", ")).format(random.choice(PLACES.split()))


def gathering(random: Random) -> str:
    return random.choice(GATHERINGS.split(", ")).format(random.choice(PLACES.split()))
