# Publishes with R's rsconnect as a user would at a prompt.
#   Rscript publish.R SERVER-URL CLAIMER|KEY STEP...
# With a key it connects by that; with a program, by a token whose address that program is given. Prints a line per step.
library(rsconnect)
arguments <- commandArgs(TRUE)
url <- arguments[[1]]
credential <- arguments[[2]]
options(rsconnect.check.certificate = TRUE, rsconnect.ca.bundle = Sys.getenv("CURL_CA_BUNDLE"))
# What it asks for packages while it describes an app.
options(repos = c(CRAN = paste0(url, "/packages/cran/latest")))
# As RStudio does before it takes an address.
seen <- rsconnect:::validateServerUrl(url)
if (!isTRUE(seen$valid)) stop("not taken for a server: ", seen$message)
addConnectServer(url, name = "bowline", quiet = TRUE)
if (startsWith(credential, "bwl_")) {
    connectApiUser(account = "ann", server = "bowline", apiKey = credential, quiet = TRUE)
} else {
    # Some time passes before a person has found their password.
    open <- function(url) system2(credential, c(shQuote(url), "&"))
    connectUser(server = "bowline", launch.browser = open, quiet = TRUE)
}
for (step in arguments[-(1:2)]) {
    what <- strsplit(step, "=", fixed = TRUE)[[1]]
    done <- switch(what[[1]],
        app = deployApp(what[[2]], appName = what[[3]], server = "bowline", launch.browser = FALSE),
        # What deployDoc does with a page; itself it wants rmarkdown even for that.
        doc = deployApp(dirname(what[[2]]), appFiles = basename(what[[2]]), appPrimaryDoc = basename(what[[2]]),
            appName = what[[3]], server = "bowline", launch.browser = FALSE),
        rmd = deployDoc(what[[2]], appName = what[[3]], server = "bowline", launch.browser = FALSE),
        end = terminateApp(what[[2]], server = "bowline"),
        list = applications(server = "bowline")
    )
    if (is.data.frame(done)) {
        cat(sprintf("%s %s %s\n", done$name, done$guid, done$url), sep = "")
    } else {
        cat(what[[3]], done, "\n")
    }
}
