"""The rules by which CoreNLP 3.4.1 cuts English text into Penn Treebank tokens.

The longest match wins, counting what must follow a token; of equally long ones, the first in the table. The rules read
the shadow of a text (`ptb_characters`). Spelled-out words match in upper and lower case, classes of characters as they
stand: so it is there, and tokens depend on it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from llava_lite.evaluation import ptb_spelling as spelling
from llava_lite.evaluation.ptb_characters import DASH, DIGIT, LETTER, MARK, SPACE, SYMBOL


@dataclass(frozen=True)
class Rule:
    """How to find a token, and how to write it.

    pattern: matches the token, which is the one group that takes part, and what must follow it
    spell:   gives what is written, None for nothing
    """

    pattern: re.Pattern[str]
    spell: Callable[[str], str | None]


@cache
def rules() -> tuple[Rule, ...]:
    """All rules, in the order that decides between equally long matches."""
    return tuple(Rule(re.compile(pattern), spell) for pattern, spell in _TABLE)


# Words whose period may be theirs
_ANYWHERE = (
    "al ala apr ariz assn aug bancorp bhd bldg blvd bros calif co colo conn corp cos ct dak dec ed.d esq est etc ext "
    "feb fla fri ga inc ind intl jan jr jul jun kan kans ky ltd mar md mich minn mo mon mont neb nev nov oct okla penn "
    "ph.d plc rd rt sep sept seq sq sr sys tel tenn thu thurs tue tues univ va vt wed wis wisc wyo"
)
_WITH_A_CAPITAL = "Ark Az Del Ill La Mass Miss Ore Pa Tex Wash"
_BEFORE_NAMES = (
    "a.k.a adj adm adv alex assoc asst atty attys ave brig capt cf cie cmdr col comdr cpl dept det dr drs elec ens ft "
    "gen gov govs hon insp invt jos lieut lt maj messrs mlle mme mr mrs ms msgr mt natl pfc ph pres prof profs pvt rep "
    "reps rev sen sens sfc sgt spc st ste supt supts treas vs wm"
)
_BEFORE_NUMBERS = "art bldg ca fig figs no nos op pp prop"
_OF_COMPANIES = "mfg mtg ppte pptes ppty pptys pte ptes pty ptys"
_PARTED = {"can": "not", "gon": "na", "wan": "na", "got": "ta", "lem": "me", "gim": "me", "'t": "(?:is|was)"}
_OPENERS = (  # words before which the period after a single letter ends a sentence
    "A About According Additionally After An As At But Earlier He Her Here However If In It Last Many More Mr. Ms. Now "
    "Once One Other Our She Since So Some Such That The Their Then There These They This We What When While Yet You"
)

SEVERAL_READINGS = frozenset(
    f"{_ANYWHERE} {_WITH_A_CAPITAL} {_BEFORE_NAMES} {_BEFORE_NUMBERS} {_OF_COMPANIES}".lower().split()
) | {first + rest for first, rest in _PARTED.items()}
"""Words that are not always just one token."""


def _any_of(words: str) -> str:
    return "(?i:" + "|".join(map(re.escape, words.split())) + ")"


def _capitalised(words: str) -> str:
    return "(?:" + "|".join(f"[{word[0]}](?i:{re.escape(word[1:])})" for word in words.split()) + ")"


# Characters, and parts of words
_BLANK = f"[ \t\u00a0{SPACE}]"
_BLANK_OR_END = f"[ \t\u00a0{SPACE}\u0085\n]"  # so that some rules look into the next caption
_ALPHA = f"A-Za-z{LETTER}"
_ALNUM = f"A-Za-z0-9{LETTER}{DIGIT}"
_DIGIT = f"[0-9{DIGIT}]"
_ENTITY = "&(?i:[aeiou](?:acute|grave|uml));"
_INITIAL = f"(?:[{_ALPHA}{MARK}\u00ad]|{_ENTITY})"
_INNER = f"(?:[{_ALNUM}{MARK}\u00ad]|{_ENTITY})"
_AMPERSAND = "&(?i:amp;)?"
_APOSTROPHE = "(?:['\u0092\u2019]|&(?i:apos);)"
_ANY_APOSTROPHE = f"(?:{_APOSTROPHE}|[`\u0091\u2018\u201b])"
_CLITIC = f"{_APOSTROPHE}(?:[msdMSD]|(?i:re|ve|ll))"
_NEGATION = f"(?i:n){_ANY_APOSTROPHE}(?i:t)"
_INSIDE_A_SENTENCE = "[,;:\u3001]"

# Words, names and numbers
_WORD = f"{_INITIAL}{_INNER}*(?:[.!?]{_INITIAL}{_INNER}*)*"
_NUMBER = f"(?:{_DIGIT}*(?:[.:,\u00ad\u066b\u066c]{_DIGIT}+)+|{_DIGIT}+)"
_PIECE = f"(?:[dDoOlL]{_ANY_APOSTROPHE}[{_ALNUM}])?[{_ALNUM}]+"
_PIECES = f"{_PIECE}(?:[-_\u058a\u2010\u2011]{_PIECE})*"
_HYPHENATED = "[A-Za-z0-9][A-Za-z0-9.,\u00ad]*(?:-(?:[A-Za-z](?:\\.[A-Za-z])+\\.|[A-Za-z0-9\u00ad]+))+"
_SLASHED = r"[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}(?:\\?/[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}){1,2}"
_INITIALS = f"[A-Z]+(?:(?:{_AMPERSAND}|\\+)[A-Z]+)+"
_ACRONYM = r"(?:(?i:(?:canada|sino|korean|eu|japan|non)-u\.s|u\.s\.-(?:u\.k|u\.s\.s\.r))|[A-Za-z](?:\.[A-Za-z])*)"
_ABBREVIATION = f"(?:{_any_of(_ANYWHERE)}|{_capitalised(_WITH_A_CAPITAL)}|(?i:pp?t)[ye](?i:s?))\\."
_TITLE = f"(?:{_ACRONYM}|{_any_of(_BEFORE_NAMES)}|[M](?i:iss)|(?i:m)[ft](?i:g))"
_WITH_APOSTROPHE = (
    f"[{_ALPHA}]+[aeiouyAEIOUY]{_ANY_APOSTROPHE}[aeiouA-Z][{_ALPHA}]*|[A-HJ-XZn]{_ANY_APOSTROPHE}[{_ALPHA}]{{2,}}|"
    f"(?i:o){_ANY_APOSTROPHE}(?i:o)|[lLdDjJ]{_APOSTROPHE}|(?i:dunkin|somethin|ol){_APOSTROPHE}|"
    f"{_APOSTROPHE}(?:(?i:n){_APOSTROPHE}?|(?i:em|till?|cause)|[2-9]0(?i:s))|"
    r"(?i:cont'd\.?|nor'easter|c'mon|e'er|s'mores|ev'ry|li'l|nat'l)"
)
_TELEPHONE = (
    "(?:\\([0-9]{2,3}\\)[ \u00a0]?|(?:\\+{1,2})?(?:[0-9]{2,4}[- \u00a0])?[0-9]{2,4}[- \u00a0])"
    "[0-9]{3,4}[- \u00a0]?[0-9]{3,5}|"
    "(?:(?:\\+{1,2})?[0-9]{2,4}\\.)?[0-9]{2,4}\\.[0-9]{3,4}\\.[0-9]{3,5}"
)
_TREEBANK_WORD = (
    "-(?i:[lr][rcs]b)-|(?i:c\\.d\\.s|pro-|anti-)|"
    f"(?i:s){_AMPERSAND}(?i:p-500|ls)|(?i:cap{_APOSTROPHE}n|c{_APOSTROPHE}est)"
)

# The web
_WWW = r'(?i:www)\.(?:[^ \t\n\f\r"<>|.!?(){},]+\.)+[a-zA-Z]{2,4}'
_SITE = r'(?:[^ \t\n\f\r"`\'<>|.!?(){},-_$]+\.)+(?i:com|net|org|edu)'  # `,-_` is a range there, too
_PATH = r'/[^ \t\n\f\r"<>|()]+[^ \t\n\f\r"<>|.!?(){},-]'
_URL = r'(?i:https?)://[^ \t\n\f\r"<>|(){}]+[^ \t\n\f\r"<>|.!?(){},-]'
_ADDRESS = (
    '(?:&(?i:lt);|<)?[a-zA-Z0-9][^ \t\n\f\r"<>|()\u00a0{}]*@(?:[^ \t\n\f\r"<>|(){}.\u00a0]+\\.)*'
    '[^ \t\n\f\r"<>|(){}.\u00a0]+(?:&(?i:gt);|>)?'
)
_FILE = (
    f"{_INNER}+(?:\\.{_INNER}+)*\\.(?i:bat|bmp|c|class|cgi|cpp|dll|docx?|exe|gif|gz|h|html?|jar|java|jpe?g|mov|mp3|pdf|php|"
    "pl|png|ppt|ps|py|sql|tar|txt|wav|x|xml|zip)"
)
_NAME = "[A-Za-z][A-Za-z0-9_:.-]*"
_ATTRIBUTE = f" +{_NAME}(?: *= *(?:'[^']*'|\"[^\"]*\"))?"
_TAG = f"<(?:[!?][A-Za-z-][^>\n\r]*|{_NAME}(?:{_ATTRIBUTE})* */?|/{_NAME}) *>"
_SMILEY = r"[<>]?[:;=][-o*']?[()DPdpO\\{@|\[\]]"
_EASTERN_SMILEY = (
    r"[\^x=~<>]\.\[\^(?i:x)=[^<\n]*<>\]|[-\^x=~<>']_[-\^x=~<>']|\([-\^x=~<>'][_.]?[-\^x=~<>']\)|"
    r"\([\^x=~<>']-[\^x=~<>'`]\)"  # the first was to be four smileys, and lacks a bracket there
)

_TABLE: list[tuple[str, Callable[[str], str | None]]] = [
    (r"((?i:c)\+\+|(?i:c|f)#)", spelling.as_it_is),
    *((f"((?i:{first}))(?i:{rest})", spelling.as_it_is) for first, rest in _PARTED.items()),
    (f"({_TAG})", spelling.in_one_piece),
    (f"(&(?i:md|mdash|ndash);|{DASH})", spelling.as_punctuation),
    ("(&(?i:amp);)", spelling.by_name),
    ("(&(?i:ht|tl|ur|lr|qc|ql|qr|odq|cdq|#[0-9]+);)", spelling.as_it_is),
    (f"({_WORD}){_CLITIC}", spelling.without_soft_hyphens),
    (f"([A-Za-z\u00ad]*[A-MO-Za-mo-z]\u00ad*){_NEGATION}", spelling.without_soft_hyphens),
    (f"({_WORD})", spelling.without_soft_hyphens),
    (f"({_WITH_APOSTROPHE})", spelling.as_it_is),
    (f"((?i:y){_APOSTROPHE})[{_ALPHA}]", spelling.as_it_is),
    (f"({_URL})", spelling.as_it_is),
    *((f"({site}{path})", spelling.as_it_is) for site in (_WWW, _SITE) for path in (_PATH, "")),
    (f"({_ADDRESS})", spelling.as_it_is),
    (f"(@[a-zA-Z_][a-zA-Z_0-9]*|#{_INITIAL}+)", spelling.as_it_is),
    (f"({_CLITIC})[^A-Za-z]", spelling.quote),
    (f"({_NEGATION})[^A-Za-z]", spelling.quote),
    (f"({_DIGIT}{{1,2}}[-/]{_DIGIT}{{1,2}}[-/]{_DIGIT}{{2,4}})", spelling.as_it_is),
    (f"([-+]?{_NUMBER})", spelling.without_soft_hyphens),
    ("([\u207a\u207b\u208a\u208b]?(?:[\u2070\u00b9\u00b2\u00b3\u2074-\u2079]+|[\u2080-\u2089]+))", spelling.as_it_is),
    (f"((?:{_DIGIT}{{1,4}}[- \u00a0])?{_DIGIT}{{1,4}}(?:\\\\?/|\u2044){_DIGIT}{{1,4}})", spelling.in_one_piece),
    ("([\u00bc-\u00be\u2153-\u215e])", spelling.by_name),
    (f"({_TREEBANK_WORD})", spelling.with_ampersands),
    (f"({_SLASHED})", spelling.as_it_is),
    ("([A-Z]*\\$|#)", spelling.as_it_is),
    ("([\u0080\u00a2-\u00a5\u060b\u0e3f\u20a0\u20a4\u20ac\uffe0\uffe1\uffe5\uffe6])", spelling.by_name),
    (f"([A-Za-z])\\.{_BLANK_OR_END}+(?:{_capitalised(_OPENERS)}|{_TAG}){_BLANK_OR_END}", spelling.as_it_is),
    (f"({_any_of(_BEFORE_NUMBERS)}\\.){_BLANK_OR_END}?{_DIGIT}", spelling.as_it_is),
    (f"((?i:pt[ey])\\.){_BLANK}(?i:ltd|lim)", spelling.as_it_is),
    (f"({_ABBREVIATION})(?s:..)?", spelling.as_it_is),
    (f"({_TITLE}\\.)", spelling.as_it_is),
    (f"({_ACRONYM}){_BLANK_OR_END}", spelling.as_it_is),
    (f"({_APOSTROPHE}[0-9][0-9]){_BLANK_OR_END}", spelling.as_it_is),
    (f"({_FILE})(?:{_BLANK_OR_END}|[.?!,])", spelling.as_it_is),
    (f"({_WORD}\\.){_INSIDE_A_SENTENCE}", spelling.without_soft_hyphens),
    (f"({_TELEPHONE})", spelling.telephone),
    ('("|&(?i:quot);)', spelling.quote),
    (r"([<>\[\](){}]|&(?i:lt|gt);)", spelling.by_name),
    (f"({_SMILEY})[^A-Za-z0-9]", spelling.with_named_brackets),
    (f"({_EASTERN_SMILEY})", spelling.with_named_brackets),
    ("(-+)", spelling.dash),
    ("(\\.{3,5}|[\u0085\u2026]|\\.[ \u00a0](?:\\.[ \u00a0]){1,3}\\.)", spelling.as_punctuation),
    (r"(@+|#+|_+|\*+|(?:\\\*){1,3}|[?!]+|[=/.])", spelling.as_it_is),
    (f"({_INSIDE_A_SENTENCE})", spelling.as_it_is),
    (f"({_HYPHENATED})", spelling.without_soft_hyphens),
    (f"({_HYPHENATED}\\.){_INSIDE_A_SENTENCE}", spelling.without_soft_hyphens),
    (f"({_PIECES})", spelling.as_it_is),
    (f"({_PIECES}\\.){_INSIDE_A_SENTENCE}", spelling.as_it_is),
    (f"({_INITIALS})", spelling.with_ampersands),
    (f"({_INITIALS}\\.){_INSIDE_A_SENTENCE}", spelling.with_ampersands),
    ("(')[A-Za-z][^ \t\n\r\u00a0]", spelling.quote),
    (f"({_CLITIC})", spelling.quote),
    (
        "([`\u2018-\u201f\u0091-\u0094\u2039\u203a\u00ab\u00bb]{1,2}|[`'\u0091\u0092\u2018\u2019]')",
        spelling.quote,
    ),
    (f"({_APOSTROPHE})", spelling.quote),
    ("(<<|>>)", spelling.as_it_is),
    (f"([+%&~^|\\\\{SYMBOL}\u207a\u207b\u208a\u208b\u2044])", spelling.as_it_is),
    (f"({_BLANK}+|&(?i:nbsp);)", spelling.nothing),
]
