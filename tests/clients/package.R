# Makes an R package with one function, as `R CMD build` makes it, and prints its path; a binary one after it on request.
#
# usage: package.R FOLDER NAME VERSION IMPORTS [binary]

args <- commandArgs(trailingOnly = TRUE)
folder <- args[1]; name <- args[2]; version <- args[3]; imports <- args[4]
setwd(folder)
unlink(name, recursive = TRUE)
dir.create(file.path(name, "R"), recursive = TRUE)
description <- c(
    Package = name, Version = version, Title = "Small", Description = "Small.", License = "GPL-2",
    Author = "Andr\u00e9", Maintainer = "Andr\u00e9 <a@example.org>", Encoding = "UTF-8",
    if (nzchar(imports)) c(Imports = imports)
)
write.dcf(t(description), file.path(name, "DESCRIPTION"), useBytes = TRUE)
writeLines(c("export(content)", if (nzchar(imports)) sprintf("import(%s)", imports)), file.path(name, "NAMESPACE"))
writeLines(sprintf("content <- function() \"%s %s\"", name, version), file.path(name, "R", "content.R"))

r <- file.path(R.home("bin"), "R")
run <- function(...) stopifnot(system2(r, c("CMD", ...), stdout = FALSE, stderr = FALSE) == 0)
run("build", "--no-build-vignettes", name)
source <- sprintf("%s_%s.tar.gz", name, version)
cat(file.path(folder, source), "\n", sep = "")
if (identical(args[5], "binary")) {
    dir.create("library", showWarnings = FALSE)
    Sys.setenv(R_LIBS = file.path(folder, "library"))
    run("INSTALL", "--build", "--no-lock", "--library=library", source)
    cat(list.files(folder, sprintf("^%s_%s_R_.*[.]tar[.]gz$", name, version), full.names = TRUE), "\n", sep = "")
}
