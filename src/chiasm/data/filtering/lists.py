"""Lists of words and letters of OmniCorpus's English rules (arXiv 2406.08418)."""

import string

# What stands round a word and is no part of it.
_MARKS = (
    "\u0081\u0082\u0083\u0084\u0085\u0091\u0092\u0093\u0095\u0096\u0097\u0098\u0099\u009c\u009d"
    "¡¢£¤¥¦§¨©ª«\u00ad®¯°±²³´·¸¹º»¼½¾¿×÷øıɪʺʻʼˈˌː˘˚˜πГ،ه٪٬۩ाीे\u094dॽা๑\u2002\u2003\u2005\u2008"
    "\u2009\u200a\u200b‐‑–—―‖‘’‚“”„‟†•․…\u202f‰′″‹›‿⁃⁄₨₪€℃™←↑→↓⇓∆∈−√∞∟∼≈≖≤≥⊕⋅═■▬▲▴▷►▻▼◆●◦★☆☛☻♡♥"
    "♫✓✦✱❖➤➩⠀\u3000、。《》「」【】゜シッツン・ー一上士﴾﴿\ufeff！（），．１：；？＾～￼�"
)
STRIPPED = string.punctuation + string.digits + string.whitespace + _MARKS

FLAGGED = frozenset(
    [
        "anal",
        "bareback",
        "bbw",
        "bdsm",
        "blowjob",
        "blowjobs",
        "brazzers",
        "bukkake",
        "camgirl",
        "camwhore",
        "cocksucking",
        "creampie",
        "cuckold",
        "cum",
        "cumming",
        "cums",
        "cumshot",
        "cumshots",
        "cumslut",
        "cunnilingus",
        "deepthroat",
        "deepthroating",
        "dildo",
        "dildos",
        "dogging",
        "doggystyle",
        "dominatrix",
        "erotic",
        "fellatio",
        "femdom",
        "fingering",
        "fisting",
        "footjob",
        "gangbang",
        "handjob",
        "hentai",
        "horney",
        "horniest",
        "horny",
        "jism",
        "jizz",
        "masterbating",
        "masturbate",
        "masturbating",
        "masturbation",
        "milf",
        "orgies",
        "orgy",
        "pegging",
        "porn",
        "pornhub",
        "porno",
        "pornos",
        "pornstar",
        "pornstars",
        "redtube",
        "rimming",
        "slutty",
        "squirting",
        "strapon",
        "threesome",
        "vibrator",
        "xhamster",
        "xnxx",
        "xvideos",
        "xxx",
        "youporn",
    ]
)

# A line that holds one of these is the page's, not the text's.
OF_PAGES = (
    "We appreciate your help to end bad business websites",
    "Not Your Average WordPress Web Design Agency",
    "Subscribe to receive exclusive content and notifications",
    "Services",
    "Any questions?",
    "Downloadable software products",
    "Some health and personal care items",
    "Please contact us through our Contact Us page to open a return ticket.",
    "Top image",
    "Like Liked",
    "Looking for",
    "How do I login to my zoom account",
    "Watch on YouTube",
    "Contact Information",
    "Read More",
    "Showing 1–9 of 7361 results",
    "Call Us",
    "There are no reviews yet",
    "Related Fellow",
    "Want More",
    "More information",
    "Login and Registration",
    "Google+",
    "YouTube",
    "Subscribe",
    "Available for you in",
    "Sign in",
    "view details",
    "ID #",
    "Thank you so much for reading",
)
# A short line beside an image that holds one of these is about the file.
OF_IMAGES = ("download", "load", "getty", "image", "photo", "source")
OF_DICTIONARY = ("word of the day", "keep scrolling for more", "take the quiz")
# How a text ends that goes on elsewhere.
UNFINISHED = (
    "read more",
    "more words",
    "read next",
    "learn more",
    "see this article",
    "click here",
    "continue reading",
)
