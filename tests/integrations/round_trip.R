# One set of counts as a Seurat object and as a SingleCellExperiment, to files; results into the objects.
#
# Started by run.R in a folder with counts.mtx ([features, cells]), features.csv and cells.csv; the step is "write", or
# "read" once fused.csv, mapped.csv and types.csv are in the folder.

counts <- as(Matrix::readMM("counts.mtx"), "CsparseMatrix")
features <- read.csv("features.csv")
cells <- read.csv("cells.csv", row.names = 1, stringsAsFactors = TRUE)
dimnames(counts) <- list(features$name, rownames(cells))
is_gene <- features$type == "rna"

seurat <- CreateSeuratObject(counts[is_gene, ], meta.data = cells)
seurat[["ADT"]] <- CreateAssayObject(counts[!is_gene, ])
sce <- SingleCellExperiment(list(counts = counts[is_gene, ]), colData = cells)
altExp(sce, "ADT") <- SingleCellExperiment(list(counts = counts[!is_gene, ]))

if (step == "write") {
  write_citeseq(seurat, "seurat.h5ad")
  write_citeseq(sce, "sce.h5ad")
  write_citeseq(sce, "rna.h5ad", protein = NULL)
} else {
  seurat <- add_cells(add_embedding(seurat, "fused.csv"), "types.csv")
  sce <- add_cells(add_embedding(sce, "fused.csv"), "types.csv")
  stopifnot(
    all(Embeddings(seurat, "fusionttt") == reducedDim(sce, "fusionttt")),
    identical(seurat$fusionttt_label, setNames(sce$fusionttt_label, colnames(sce)))
  )
  write.csv(Embeddings(seurat, "fusionttt"), "seen.csv")
  write.csv(reducedDim(add_embedding(sce, "mapped.csv"), "fusionttt"), "mapped_seen.csv")
  write.csv(data.frame(label = sce$fusionttt_label, row.names = colnames(sce)), "labels.csv")
}
