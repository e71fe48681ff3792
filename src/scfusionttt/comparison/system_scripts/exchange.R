# The files that a script exchanges with scfusionttt.
suppressMessages(library(Matrix))
# R ends with "Execution halted"; the last line is to be the error.
options(error = quote({
  message(gsub("\\s+", " ", geterrmessage()))
  quit(status = 1)
}))
arguments <- commandArgs(trailingOnly = TRUE)
folder <- arguments[1]
set.seed(as.integer(arguments[2]))

rna <- as(t(readMM(file.path(folder, "cells", "rna.mtx"))), "CsparseMatrix") # genes, cells
protein <- t(as.matrix(read.csv(file.path(folder, "cells", "protein.csv"), check.names = FALSE)))
# the methods read no names, and Seurat takes CD3_1 and CD3-1 for the same
dimnames(rna) <- list(paste0("gene", seq_len(nrow(rna))), paste0("cell", seq_len(ncol(rna))))
dimnames(protein) <- list(paste0("protein", seq_len(nrow(protein))), colnames(rna))

write_graph <- function(graph) {
  invisible(writeMM(as(as(graph, "generalMatrix"), "CsparseMatrix"), file.path(folder, "result.mtx")))
}
