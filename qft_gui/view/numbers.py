"""How numbers look to a person: one formatter per quantity, no finer than it is known."""

from __future__ import annotations

GIB = 1 << 30
MISSING = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"


def gib(size: float | None) -> str:
    """Bytes as GiB, without the unit.

    >>> gib(10_415_000_000), gib(161_061_273), gib(5_368_709), gib(40_000), gib(0)
    ('9.7', '0.15', '0.005', '<0.001', '0')
    """
    if size is None:
        return MISSING
    value = size / GIB
    if value >= 1:
        return f"{value:,.1f}"
    if value >= 0.095:
        return f"{value:.2f}"
    if value >= 0.0005:
        return f"{value:.3f}"
    return "0" if size == 0 else "<0.001"


def file_size(number: float | None) -> str:
    """Bytes of files, in a unit that suits them.

    >>> file_size(7_100_000), file_size(40_000), file_size(2_630_000_000), file_size(0)
    ('6.8 MiB', '0.04 MiB', '2.4 GiB', '0 MiB')
    """
    if number is None or number >= 0.095 * GIB:
        return f"{gib(number)} GiB"
    mebibytes = number / (1 << 20)
    if mebibytes >= 9.95:
        return f"{mebibytes:.0f} MiB"
    return f"{mebibytes:.1f} MiB" if mebibytes >= 0.095 else f"{mebibytes:.1g} MiB"


def span(low: float, high: float) -> str:
    """A band in GiB.

    >>> span(9_985_798_963, 10_952_166_604).split()[::2]
    ['9.3', '10.2']
    """
    return f"{gib(low)} {MISSING} {gib(high)}"


def parameters(number: int) -> str:
    """A model's size in words.

    >>> parameters(4_022_468_096), parameters(5_240_000), parameters(999_885_952)
    ('4.02 billion', '5.24 million', '1 billion')
    """
    if number >= 999_500_000:  # three digits of a million would round to 1,000
        return f"{number / 1e9:.3g} billion"
    if number >= 1_000_000:
        return f"{number / 1e6:.3g} million"
    return f"{number:,}"


def duration(seconds: float | None) -> str:
    """A time span, coarse on purpose.

    >>> duration(12.4), duration(125), duration(4000)
    ('12 s', '2 min', '1 h 7 min')
    """
    if seconds is None:
        return MISSING
    if seconds < 90:
        return f"{max(0, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


def wait(seconds: float) -> str:
    """A short wait, in milliseconds below a second.

    >>> wait(0.0123), wait(0.25), wait(1.52)
    ('12 ms', '250 ms', '1.5 s')
    """
    return f"{seconds:.1f} s" if seconds >= 0.9995 else f"{max(1, round(1000 * seconds))} ms"


def two_digits(value: float) -> float:
    """A number to two significant figures.

    >>> two_digits(75_612), two_digits(0.754), two_digits(0)
    (76000.0, 0.75, 0.0)
    """
    return float(f"{value:.2g}")


def loss(value: float | None) -> str:
    """Nats per token.

    >>> loss(1.6289), loss(0.0312)
    ('1.63', '0.031')
    """
    if value is None:
        return MISSING
    return f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.3f}"


def rate(value: float | None) -> str:
    """Something per second.

    >>> rate(1240.4), rate(31.42)
    ('1,240', '31.4')
    """
    if value is None:
        return MISSING
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def percent(share: float) -> str:
    """A share in percent, with its sign.

    >>> percent(3.14), percent(93.4), percent(0.02), percent(0.0004), percent(0), percent(1.0)
    ('3.1 %', '93 %', '0.02 %', '<0.001 %', '0 %', '1.0 %')
    """
    if share >= 9.95:
        return f"{share:.0f} %"
    if share >= 0.095:
        return f"{share:.1f} %"
    if share >= 0.0005:
        return f"{share:.1g} %"
    return "0 %" if share == 0 else "<0.001 %"


def ratio(value: float) -> str:
    """One size as a multiple of another, in two digits.

    >>> ratio(0.0912), ratio(1.0), ratio(26.4), ratio(431.0), ratio(0.00042), ratio(0)
    ('0.091', '1', '26', '431', '4.2e-4', '0')
    """
    if value >= 10:
        return f"{value:,.0f}"
    if value >= 0.001 or value == 0:
        return f"{value:.2g}"
    return learning_rate(float(f"{value:.2g}"))


def off_by(forecast: float | None, measured: float | None) -> str:
    """The signed error of a forecast, against what was measured.

    >>> off_by(9.7, 9.5), off_by(10.8, 11.3).replace(MINUS, "-"), off_by(0.99999, 1.0)
    ('+2.1 %', '-4.4 %', '0.0 %')
    """
    if not forecast or not measured:
        return MISSING
    percent = 100 * (forecast - measured) / measured
    sign = "+" if abs(percent) >= 0.05 else ""
    return f"{percent:{sign}.1f} %".removeprefix("-" if not sign else "").replace("-", MINUS)


def compared(forecast: int, measured: int) -> str:
    """A forecast's error in words, against what was measured.

    >>> compared(105, 100), compared(95, 100), compared(100_001, 100_000), compared(7, 7)
    ('5.0 % too high', '5.0 % too low', '0.0 % off', 'exact')
    """
    error = off_by(forecast, measured).lstrip(f"+{MINUS}")
    if forecast == measured:
        return "exact"
    if error == "0.0 %":
        return f"{error} off"
    return f"{error} too {'high' if forecast > measured else 'low'}"


def learning_rate(value: float) -> str:
    """A learning rate as people write it: in plain digits from a thousandth up.

    >>> learning_rate(0.0004), learning_rate(4e-06), learning_rate(0.02), learning_rate(1.0)
    ('4e-4', '4e-6', '0.02', '1')
    """
    if 0.001 <= value < 1000:
        return f"{value:.4g}"
    mantissa, exponent = f"{value:.3e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"
