"""A small Shiny app that says which process serves it.

Open it, move the slider, end the process it names: the page comes back on another one, inputs kept, because of
`session.allow_reconnect(True)` and the reconnect script Bowline puts into the page.
"""

import hashlib
import math
import os
from datetime import datetime

from shiny import App, Inputs, Outputs, Session, render, ui

NODE = os.environ.get("BOWLINE_NODE", "this machine")
STYLE = """
body { background: #f4f6f8; }
.page { max-width: 960px; margin: 32px auto; padding: 0 16px; }
.page h1 { font-size: 1.6rem; margin-bottom: .25rem; }
.page .lead { color: #5b6770; margin-bottom: 1.5rem; }
.panel { background: #fff; border: 1px solid #dde3e8; border-radius: .6rem; padding: 1.25rem; margin-bottom: 1rem; }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(340px, 1fr)); gap: 1rem; }
.columns .panel { margin-bottom: 0; }
#greeting { font-size: 1.3rem; }
#upload_info { overflow-wrap: anywhere; }
#served_by { font-family: ui-monospace, monospace; color: #0b6e4f; font-weight: 600; }
svg { width: 100%; height: 7rem; }
svg rect { fill: #0b6e4f; }
"""

app_ui = ui.page_fluid(
    ui.head_content(
        ui.tags.title("Bowline: Shiny for Python"),
        # Tells the demo that its own process answers, not a stranger on the same port.
        ui.tags.meta(name="bowline-demo", content=os.environ.get("BOWLINE_DEMO", "")),
        ui.tags.style(STYLE),
    ),
    ui.div(
        ui.h1("Shiny for Python, behind Bowline"),
        ui.p("Served by ", ui.output_text("served_by", inline=True), " since ",
             ui.output_text("session_since", inline=True), class_="lead"),
        ui.div(
            ui.div(
                ui.input_slider("n", "How many?", min=1, max=100, value=20),
                ui.input_text("name", "Who are you?", placeholder="your name"),
                class_="panel",
            ),
            ui.div(ui.output_text("greeting"), ui.output_ui("waves"), class_="panel"),
            ui.div(ui.input_file("file", "Upload a file"), ui.output_text("upload_info"), class_="panel"),
            ui.div(ui.p("The bars above, as numbers:"), ui.download_button("data", "Download CSV"), class_="panel"),
            class_="columns",
        ),
        class_="page",
    ),
)


def heights(n: int) -> list[float]:
    """`n` heights between 0 and 1."""
    return [abs(math.sin(i * 0.35)) * 0.9 + 0.1 for i in range(n)]


def server(input: Inputs, output: Outputs, session: Session):
    session.allow_reconnect(True)
    since = datetime.now().strftime("%H:%M:%S")

    @render.text
    def served_by():
        return f"{NODE} (pid {os.getpid()})"

    @render.text
    def session_since():
        return since

    @render.text
    def greeting():
        return f"Hello, {input.name().strip() or 'stranger'}: n = {input.n()}"

    @render.ui
    def waves():
        width = 100 / input.n()
        bars = "".join(
            f'<rect x="{i * width:.2f}" y="{40 * (1 - h):.2f}" width="{width * 0.8:.2f}" height="{40 * h:.2f}"/>'
            for i, h in enumerate(heights(input.n()))
        )
        return ui.HTML(f'<svg viewBox="0 0 100 40" preserveAspectRatio="none">{bars}</svg>')

    @render.text
    def upload_info():
        files = input.file()
        if not files:
            return "nothing uploaded yet"
        file = files[0]
        digest = hashlib.sha256()
        with open(file["datapath"], "rb") as content:
            while chunk := content.read(1 << 20):
                digest.update(chunk)
        return f"{file['name']}: {file['size']} bytes, sha256 {digest.hexdigest()}"

    @render.download(filename="data.csv")
    def data():
        yield "i,height\n"
        for i, height in enumerate(heights(input.n())):
            yield f"{i},{height:.6f}\n"


app = App(app_ui, server)
