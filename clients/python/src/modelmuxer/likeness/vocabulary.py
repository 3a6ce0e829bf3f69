"""Words that the comparison knows: which say little, which say no, which are numbers, units or mere courtesy."""

from __future__ import annotations

import re
from typing import Final


def words_of(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


CONTRACTIONS: Final = {
    "can't": "can not", "cannot": "can not", "won't": "will not", "shan't": "shall not", "ain't": "is not",
    "what's": "what is", "who's": "who is", "where's": "where is", "how's": "how is", "when's": "when is",
    "why's": "why is", "that's": "that is", "there's": "there is", "it's": "it is", "he's": "he is", "she's": "she is",
    "let's": "let us", "i'm": "i am", "dont": "do not", "doesnt": "does not", "didnt": "did not", "isnt": "is not",
    "cant": "can not", "wont": "will not", "whats": "what is", "im": "i am", "ive": "i have", "arent": "are not",
    "wasnt": "was not", "shouldnt": "should not", "couldnt": "could not", "wouldnt": "would not", "hasnt": "has not",
    "havent": "have not",
}  # fmt: skip
ENDINGS: Final = (("n't", " not"), ("'re", " are"), ("'ve", " have"), ("'ll", " will"), ("'d", " would"), ("'s", ""))

_GREETINGS = (
    r"^(?:hi|hello|hey|greetings|good (?:morning|afternoon|evening|day)|dear \w+)"
    r"(?: (?:there|all|everyone|everybody|guys|folks|team|again))?[\s,.!:;-]+"
)
_OPENINGS = (
    r"^(?:excuse me|sorry|quick question|just wondering|i was wondering|i am wondering|i wonder|i have a question"
    r"|a question|(?:could|can|would|will) you (?:please )?help me(?: with this| out)?\?*)"
    r"(?: if you could tell me)?[\s,.:;!-]+"
    r"|^(?:please |kindly )?(?:answer|explain|advise|clarify)(?: this| me)?[:,]\s*"
)
_TELL_ME = (
    r"^(?:(?:could|can|would|will) you (?:please |kindly |maybe )?(?:tell|explain to|help) me(?: understand)?"
    r"|(?:please |kindly )?(?:tell|help) me|i (?:would|'d) (?:like|love) to know|i (?:want|need) to know|do you know"
    r"|may i ask|can i ask)"
    r"(?:\s*[,:]+\s*|\s+(?=(?:how|what|why|when|where|who|whom|whose|which|if|whether|is|are|do|does|did|can)\b))"
    r"(?:if |whether )?"
)
_THANKS = (
    r"\b(?:please|pls|plz|kindly|thanks|thank you|thx|cheers|many thanks)"
    r"(?: (?:you )?(?:so |very )?(?:much|a lot|in advance))*\b"
    r"|\b(?:much appreciated|in advance)\b|\bor not(?=\W*$)"
)
# Said to be kind, or to begin or end: nothing of it changes what is asked.
OPENING: Final = re.compile("|".join((_GREETINGS, _OPENINGS, _TELL_ME)), re.IGNORECASE)
THANKS: Final = re.compile(_THANKS, re.IGNORECASE)
# Without any of these there is nothing to be found: looking for them costs a tenth of the expressions.
OPENING_WORDS: Final = words_of(
    """
    hi hello hey greetings good dear excuse sorry quick just i i'd a could can would will please kindly answer explain
    advise clarify tell help do may
    """
)
THANKS_WORDS: Final = (
    *("please", "pls", "plz", "kindly", "thank", "thx", "cheers", "appreciated", "advance", "or not"),
)

NEGATIONS: Final = words_of(
    """
    not no never none nobody nothing nowhere neither nor without hardly barely scarcely except unless
    """
)
# Words that turn a question round, which must be the very same in both.
POLES: Final = words_of(
    """
    worst worse bad opposite illegal impossible wrong fake false male female man men woman women gain decrease
    monday tuesday wednesday thursday friday saturday sunday yesterday today tomorrow tonight
    january february april june july august september october november december
    """
)
NUMBERS: Final = {
    word: number
    for number, words in enumerate(
        [
            "zero",
            "one",
            "two",
            "three",
            "four",
            "five",
            "six",
            "seven",
            "eight",
            "nine",
            "ten",
            "eleven",
            "twelve",
            "thirteen",
            "fourteen",
            "fifteen",
            "sixteen",
            "seventeen",
            "eighteen",
            "nineteen",
        ]
    )
    for word in [words]
    if word != "one"  # mostly a pronoun
} | {
    **{word: 10 * place for place, word in enumerate(("twenty", "thirty", "forty", "fifty"), 2)},
    **{word: 10 * place for place, word in enumerate(("sixty", "seventy", "eighty", "ninety"), 6)},
    "hundred": 100,
    "thousand": 1000,
    "million": 10**6,
    "billion": 10**9,
    "dozen": 12,
}
# Units by their usual names; what is not here counts as a word.
UNITS: Final = {
    name: names.split()[0]
    for names in (
        "km kilometer kilometers kilometre kilometres kms",
        "mile miles mi",
        "metre meter meters metres",
        "cm centimeter centimeters centimetre centimetres",
        "mm millimeter millimeters millimetre millimetres",
        "foot feet ft",
        "inch inches",
        "yard yards",
        "kg kilo kilos kilogram kilograms kgs",
        "lb lbs pound pounds",
        "gram grams gm",
        "ounce ounces oz",
        "ton tons tonne tonnes",
        "litre liter liters litres",
        "gallon gallons",
        "celsius centigrade",
        "fahrenheit",
        "hour hours hr hrs",
        "minute minutes min mins",
        "second seconds sec secs",
        "day days",
        "week weeks",
        "month months",
        "year years yr yrs",
        "dollar dollars usd",
        "euro euros eur",
        "rupee rupees inr rs",
        "percent percentage",
        "kb kilobyte kilobytes",
        "mb megabyte megabytes",
        "gb gigabyte gigabytes",
        "tb terabyte terabytes",
    )
    for name in names.split()
}
SYMBOLS: Final = {"%": "percent", "$": "dollar", "€": "euro", "£": "pound", "₹": "rupee", "°": "degree", "&": "and"}
UNIT_SYMBOLS: Final = frozenset("%$€£₹°")
CODE_SYMBOLS: Final = frozenset("+#=<>^{}@\\|~*")
# Words whose two sides may not be exchanged.
DIRECTIONS: Final = words_of(
    """
    than from to into by before after over under against
    """
)
# Of these a sentence has one or the other.
OPPOSITES: Final = tuple(
    tuple(map(frozenset, (one.split("|"), other.split("|"))))
    for one, other in (
        ("before", "after"), ("before", "during"), ("during", "after"), ("above|over", "below|under"), ("more", "less"),
        ("most", "least"), ("up", "down"), ("on", "off"), ("in|into", "out"), ("from", "to"), ("since", "until"),
        ("he|him|his", "she|her|hers"), ("all|every|each|both", "some|any"),
    )
)  # fmt: skip
# Countries as many questions name them, so that they are names in small letters too.
PLACES: Final = words_of(
    """
    india pakistan bangladesh china japan korea vietnam thailand indonesia malaysia singapore philippines australia
    canada mexico brazil argentina chile peru colombia america usa uk britain england scotland ireland france germany
    spain portugal italy greece turkey russia ukraine poland sweden norway denmark finland netherlands belgium austria
    switzerland israel iran iraq egypt nigeria kenya ethiopia ghana morocco dubai qatar europe africa asia california
    texas london paris delhi mumbai bangalore chennai hyderabad pune kolkata
    """
)

# Words that say how a sentence is built, not what it is about.
FUNCTION: Final = words_of(
    """
    a an the this that these those some any each every such i me my mine myself you your yours yourself we us our
    ours one ones someone somebody anyone anybody everyone everybody people person it its itself they them their
    theirs he him his she her hers am is are was were be been being do does did doing done have has had having
    will would shall should can could may might must ought need to of in on at by for from with about into onto as
    than then so if whether and or but too also just there here how what why when where who whom whose which get
    gets getting got really actually exactly very quite ever even like kind sort thing things way ways good best
    better great main major common various different currently nowadays realistically basically simply
    """
)
# Prepositions and pronouns that tell sides apart, and so count where nothing else differs.
SIDES: Final = words_of(
    """
    before after above under over below between against during until since off out up down more less most least
    only all both he him his she her hers than from
    """
)
KINDS: Final = {
    "who": "who", "whom": "who", "whose": "who", "when": "when", "where": "where", "why": "why", "how": "how",
    "what": "what", "which": "what",
}  # fmt: skip
ASKS_YES_NO: Final = words_of(
    """
    is are was were am do does did can could will would shall should may might must has have had
    """
)

# Questions for one of these are not answered by an answer to the other.
ASKED_APART: Final = frozenset(
    frozenset(pair.split("|"))
    for pair in (
        *("why|how", "why|when", "why|where", "why|who", "why|yes or no", "when|where", "when|who", "when|how"),
        *("when|yes or no", "where|who", "who|how", "who|yes or no"),
    )
)
PAST: Final = words_of("did was were had")
MODALS: Final = words_of("will would shall should can could may might must")

# Two words and no slip of the pen, by their stems.
WORDS_A_LETTER_APART: Final = words_of(
    """
    adopt adapt angel angl casual causal causality complement compliment confirm conform country county desert dessert
    diary dairy discret discreet expand expend insulin inulin marital martial moral morale personal perfect prefect
    prescrib proscrib principal principl quiet quit session cession station statue statut symbol trail trial weather
    whether wander wonder
    """
)
# Words that say the same in a question, by the first of each row.
_SYNONYMS = """
make earn
begin start commence
big large huge
small little tiny
buy purchase
fix repair
film movie
picture photo photograph image
child kid
speak talk
quick fast rapid
fastest quickest
easiest simplest
easy simple
reason cause
difference differentiate distinguish differ
meaning mean definition define
information info data
internet online web
phone smartphone mobile cellphone
computer pc
mathematics math maths
application app
website site
photo pic
rotate spin
characteristic trait feature
occur happen
select choose pick
finish complete
assist help
job employment
salary pay wage
university college
usa us america
uk britain
marry marriage
die death
live life living
exist existence
develop development
learn study
prepare preparation
improve enhance
remove delete erase
advantage benefit pro
disadvantage drawback con
interesting fascinating
scariest creepiest spookiest
funny hilarious
favourite favorite
colour color
"""
SYNONYMS: Final = {word: row.split()[0] for row in reversed(_SYNONYMS.strip().splitlines()) for word in row.split()}
