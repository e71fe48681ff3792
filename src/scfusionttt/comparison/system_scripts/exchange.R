# The files that a script exchanges with scfusionttt.
suppressMessages(library(Matrix))
arguments <- commandArgs(trailingOnly = TRUE)
folder <- arguments[1]
set.seed(as.integer(arguments[2]))

rna <- as(t(readMM(file.path(folder, "cells", "rna.mtx"))), "CsparseMatrix") # genes, cells
protein <- t(as.matrix(read.csv(file.path(folder, "cells", "protein.csv"), check.names = FALSE)))
dimnames(rna) <- list(
  make.unique(readLines(file.path(folder, "cells", "genes.txt"))), paste0("cell", seq_len(ncol(rna)))
)
rownames(protein) <- make.unique(rownames(protein))
colnames(protein) <- colnames(rna)

write_graph <- function(graph) {
  invisible(writeMM(as(as(graph, "generalMatrix"), "CsparseMatrix"), file.path(folder, "result.mtx")))
}
