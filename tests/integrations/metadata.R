# Metadata and names that were lost or changed on the way to a file and back. Started by run.R.

cells <- c("001", "002", "003")
matrix_of <- function(features) {
  values <- matrix(seq_len(3 * length(features)), ncol = 3, dimnames = list(features, cells))
  as(values, "CsparseMatrix")
}
genes <- matrix_of(c("CD4", "LYZ"))
proteins <- matrix_of("CD4")
fails <- function(expression, message) stopifnot(grepl(message, tryCatch(expression, error = conditionMessage)))

# to the file
bare <- SingleCellExperiment(list(counts = genes))
write_citeseq(bare, "bare.h5ad", protein = NULL)
sce <- SingleCellExperiment(
  list(counts = DelayedArray::DelayedArray(genes)),
  colData = DataFrame(
    "cell type" = c("a", NA, "b"), n = c(1L, NA, 3L), "a/b" = 1:3, a_b = 4:6, "_index" = 7:9,
    check.names = FALSE
  )
)
altExp(sce, "ADT") <- SingleCellExperiment(list(counts = as.matrix(proteins)))
write_citeseq(sce, "sce.h5ad")
unnamed <- sce
colnames(unnamed) <- NULL
fails(write_citeseq(unnamed, "unnamed.h5ad"), "unique names")
colnames(unnamed) <- c("1", "1", "2")
fails(write_citeseq(unnamed, "unnamed.h5ad"), "unique names")
rownames(bare) <- NULL
fails(write_citeseq(bare, "unnamed.h5ad", protein = NULL), "RNA has no names of features; set rownames")

seurat <- suppressWarnings(CreateSeuratObject(genes, assay = "Gene"))
seurat[["AB"]] <- CreateAssayObject(proteins)
said <- tryCatch(write_citeseq(seurat, "rna.h5ad", rna = "Gene"), message = conditionMessage)
stopifnot(grepl("writing RNA alone.*Gene, AB", said))
write_citeseq(seurat, "seurat.h5ad", rna = "Gene", protein = "AB")
seurat[["normalized"]] <- CreateAssayObject(data = proteins)
fails(write_citeseq(seurat, "none.h5ad", rna = "Gene", protein = "normalized"), "normalized has no raw counts")

# and back
writeLines(c("cell,label,CD4+ T,CD4- T,1", "001,T,0.9,0.1,0", "003,T,0.8,0.2,0"), "types.csv")
writeLines(c("cell,fusionttt_label,fusionttt_0", "001,01,0.5", "002,02,1.5", "003,02,2.5"), "mapped.csv")
back <- add_embedding(add_cells(add_cells(seurat, "types.csv"), "mapped.csv", prefix = "map_"), "mapped.csv")
stopifnot(
  identical(unname(back$fusionttt_label), c("T", NA, "T")),
  identical(unname(back$fusionttt_CD4..T), c(0.9, NA, 0.8)),
  identical(unname(back$fusionttt_CD4..T.1), c(0.1, NA, 0.2)),
  identical(grep("^map_", names(back[[]]), value = TRUE), "map_label"),
  identical(unname(back$map_label), c("01", "02", "02")),
  identical(c(Embeddings(back, "fusionttt")), c(0.5, 1.5, 2.5)),
  identical(DefaultAssay(back[["fusionttt"]]), "Gene"),
  "fusionttt_class_1" %in% names(back[[]]) # fusionttt_1 is the first dimension
)
fails(add_embedding(seurat, "types.csv"), "types.csv has no embedding")
stopifnot(identical(add_cells(sce, "mapped.csv")$fusionttt_label, c("01", "02", "02")))
