"""Words that commands, pages and the viewer share."""


def counted(number: int) -> str:
    """Say how many instances there are.

    Examples
    --------
    >>> counted(1), counted(1200)
    ('1 instance', '1,200 instances')
    """
    return f"{number:,} instance{'' if number == 1 else 's'}"
