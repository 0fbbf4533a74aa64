"""Interface: the OpenAPI description as a plain page, which needs no script and nothing from elsewhere."""

from html import escape


def as_page(openapi: dict) -> str:
    """One table of all routes."""
    info = openapi["info"]
    rows = []
    for path, operations in openapi["paths"].items():
        for method, operation in operations.items():
            takes = [f"{each['name']} ({each['in']})" for each in operation.get("parameters", ())]
            takes += [f"body: {kind}" for kind in operation.get("requestBody", {}).get("content", ())]
            cells = (
                f"<code>{method.upper()} {escape(path)}</code>",
                escape(operation.get("description", operation.get("summary", ""))),
                escape(", ".join(takes)),
                escape(", ".join(operation["responses"])),
            )
            rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(info['title'])}: HTTP interface</title>"
        '<link rel="icon" href="/static/icon.svg" type="image/svg+xml"></head><body><main>'
        f"<h1>{escape(info['title'])}: HTTP interface</h1>"
        + "".join(f"<p>{escape(part)}</p>" for part in info["description"].strip().split("\n\n"))
        + '<p>For programs: <a href="/openapi.json">openapi.json</a></p>'
        "<table><thead><tr><th>route</th><th>does</th><th>takes</th><th>answers</th></tr></thead><tbody>"
        + "".join(rows)
        + "</tbody></table></main></body></html>"
    )
