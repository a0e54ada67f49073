"""Pages of the documentation."""


def table_of(text: str) -> list[list[str]]:
    """The cells of a Markdown table, without heading and rule."""
    rows = [line.strip().strip("|").split(" | ") for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows[2:]]
