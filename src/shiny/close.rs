//! Websocket close codes as Shiny clients read them.
