"""Why a function of a script refused a document, without anything of the document."""


def reason_of(error: ValueError) -> str:
    """Return the text of *error* where it stands in the script as it is; of another one, its type alone.

    What Python itself says of a value, such as ``int`` of a text, quotes it.
    """
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    texts = place.tb_frame.f_code.co_consts if place is not None else ()
    text = str(error)
    return text if text in texts else f"{type(error).__name__}; a reason that the script raises as a plain text is kept"
