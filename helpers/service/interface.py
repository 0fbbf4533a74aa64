"""The OpenAPI description as a plain HTML page without scripts."""

from html import escape


def as_page(openapi: dict) -> str:
    """An HTML table of all routes."""
    info = openapi["info"]
    rows = []
    for path, operations in openapi["paths"].items():
        for method, operation in operations.items():
            parameters = [f"{each['name']} ({each['in']})" for each in operation.get("parameters", ())]
            parameters += [f"body: {kind}" for kind in operation.get("requestBody", {}).get("content", ())]
            cells = (
                f"<code>{method.upper()} {escape(path)}</code>",
                escape(operation.get("description", operation.get("summary", ""))),
                escape(", ".join(parameters)),
                escape(", ".join(operation["responses"])),
            )
            rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(info['title'])}: HTTP interface</title>"
        '<link rel="icon" href="static/icon.svg" type="image/svg+xml"></head><body><main>'
        f"<h1>{escape(info['title'])}: HTTP interface</h1>"
        + "".join(f"<p>{escape(part)}</p>" for part in info["description"].strip().split("\n\n"))
        + '<p>The complete description in OpenAPI format: <a href="openapi.json">openapi.json</a></p>'
        "<p>The paths below continue the address of the search page.</p>"
        "<table><thead><tr><th>Route</th><th>Description</th><th>Parameters</th><th>Responses</th></tr></thead><tbody>"
        + "".join(rows)
        + "</tbody></table></main></body></html>"
    )
