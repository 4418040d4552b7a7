# Reads one Set-Cookie value from standard input as R's rsconnect does for a request to a deep path, and prints the
# Cookie value it sends with the next one. Arguments: protocol, host, port.
library(rsconnect)

given <- commandArgs(trailingOnly = TRUE)
url <- list(protocol = given[1], host = given[2], port = given[3], path = "/__api__/server_settings")
lines <- readLines(file("stdin"))

# A cookie it cannot read is only worth a warning to it.
options(warn = 2)
store <- getFromNamespace("storeCookies", "rsconnect")
append_headers <- getFromNamespace("appendCookieHeaders", "rsconnect")
store(url, lines[1])
cat(append_headers(url, list())[["cookie"]], "\n", sep = "")
