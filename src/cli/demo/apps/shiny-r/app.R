# A small Shiny app that says which process serves it.
#
# Open it, move the slider, end the process it names: the page comes back on another one, inputs kept, because of
# `session$allowReconnect(TRUE)` and the reconnect script Bowline puts into the page.

library(shiny)

options(shiny.maxRequestSize = 256 * 1024^2)

node <- Sys.getenv("BOWLINE_NODE", "this machine")
style <- "
body { background: #f4f6f8; }
.page { max-width: 960px; margin: 32px auto; padding: 0 16px; }
.page h1 { font-size: 24px; margin-bottom: 4px; }
.page .lead { color: #5b6770; font-size: 16px; margin-bottom: 24px; }
.panel { background: #fff; border: 1px solid #dde3e8; border-radius: 10px; padding: 20px; box-shadow: none; margin: 0; }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(340px, 1fr)); gap: 16px; }
#greeting { font-size: 20px; }
#upload_info { overflow-wrap: anywhere; }
#served_by { font-family: ui-monospace, monospace; color: #1f5fa8; font-weight: 600; }
svg { width: 100%; height: 112px; }
svg rect { fill: #1f5fa8; }
"

ui <- fluidPage(
  title = "Bowline: Shiny for R",
  tags$head(
    # Tells the demo that its own process answers, not a stranger on the same port.
    tags$meta(name = "bowline-demo", content = Sys.getenv("BOWLINE_DEMO")),
    tags$style(HTML(style))
  ),
  div(
    class = "page",
    h1("Shiny for R, behind Bowline"),
    p(class = "lead", "Served by ", textOutput("served_by", inline = TRUE),
      " since ", textOutput("session_since", inline = TRUE)),
    div(
      class = "columns",
      div(class = "panel",
          sliderInput("n", "How many?", min = 1, max = 100, value = 20),
          textInput("name", "Who are you?", placeholder = "your name")),
      div(class = "panel", textOutput("greeting"), uiOutput("waves")),
      div(class = "panel", fileInput("file", "Upload a file"), textOutput("upload_info")),
      div(class = "panel", p("The bars above, as numbers:"), downloadButton("data", "Download CSV"))
    )
  )
)

# `n` heights between 0 and 1.
heights <- function(n) abs(sin((seq_len(n) - 1) * 0.35)) * 0.9 + 0.1

server <- function(input, output, session) {
  session$allowReconnect(TRUE)
  since <- format(Sys.time(), "%H:%M:%S")

  output$served_by <- renderText(sprintf("%s (pid %d)", node, Sys.getpid()))
  output$session_since <- renderText(since)
  output$greeting <- renderText({
    name <- trimws(input$name)
    sprintf("Hello, %s: n = %d", if (nzchar(name)) name else "stranger", as.integer(input$n))
  })
  output$waves <- renderUI({
    h <- heights(input$n)
    width <- 100 / input$n
    bars <- sprintf('<rect x="%.2f" y="%.2f" width="%.2f" height="%.2f"/>',
                    (seq_along(h) - 1) * width, 40 * (1 - h), width * 0.8, 40 * h)
    HTML('<svg viewBox="0 0 100 40" preserveAspectRatio="none">', paste(bars, collapse = ""), "</svg>")
  })
  output$upload_info <- renderText({
    file <- input$file
    if (is.null(file)) return("nothing uploaded yet")
    sum <- digest::digest(file = file$datapath[1], algo = "sha256")
    sprintf("%s: %.0f bytes, sha256 %s", file$name[1], file$size[1], sum)
  })
  output$data <- downloadHandler(
    filename = "data.csv",
    content = function(path) {
      h <- heights(input$n)
      writeLines(c("i,height", sprintf("%d,%.6f", seq_along(h) - 1L, h)), path)
    }
  )
}

shinyApp(ui, server)
