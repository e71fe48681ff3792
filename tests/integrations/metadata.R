# Metadata and names that were lost or changed on the way to a file. Arguments: script of the functions, folder.
suppressMessages({
  library(SeuratObject)
  library(SingleCellExperiment)
})
arguments <- commandArgs(trailingOnly = TRUE)
source(arguments[[1]])
setwd(arguments[[2]])

cells <- c("001", "002", "003")
matrix_of <- function(features) {
  values <- matrix(seq_len(3 * length(features)), ncol = 3, dimnames = list(features, cells))
  as(values, "CsparseMatrix")
}
genes <- matrix_of(c("CD4", "LYZ"))
proteins <- matrix_of("CD4")
fails <- function(expression, message) stopifnot(grepl(message, tryCatch(expression, error = conditionMessage)))

bare <- SingleCellExperiment(list(counts = genes))
write_citeseq(bare, "bare.h5ad", protein = NULL)
sce <- SingleCellExperiment(
  list(counts = DelayedArray::DelayedArray(genes)),
  colData = DataFrame("cell type" = c("a", NA, "b"), n = c(1L, NA, 3L), "a/b" = 1:3, check.names = FALSE)
)
altExp(sce, "ADT") <- SingleCellExperiment(list(counts = as.matrix(proteins)))
write_citeseq(sce, "sce.h5ad")
unnamed <- sce
colnames(unnamed) <- NULL
fails(write_citeseq(unnamed, "unnamed.h5ad"), "unique names")
colnames(unnamed) <- c("1", "1", "2")
fails(write_citeseq(unnamed, "unnamed.h5ad"), "unique names")

seurat <- suppressWarnings(CreateSeuratObject(genes, assay = "Gene"))
seurat[["AB"]] <- CreateAssayObject(proteins)
said <- tryCatch(write_citeseq(seurat, "rna.h5ad", rna = "Gene"), message = conditionMessage)
stopifnot(grepl("writing RNA alone.*Gene, AB", said))
write_citeseq(seurat, "seurat.h5ad", rna = "Gene", protein = "AB")
seurat[["normalized"]] <- CreateAssayObject(data = proteins)
fails(write_citeseq(seurat, "none.h5ad", rna = "Gene", protein = "normalized"), "normalized has no raw counts")
