# Seurat's weighted nearest neighbours (Hao et al. 2021), with the settings of its vignette.
source(file.path(dirname(sub("--file=", "", grep("--file=", commandArgs(), value = TRUE))), "exchange.R"))
suppressMessages(library(Seurat))
options(warn = -1)

cells <- CreateSeuratObject(rna)
cells[["ADT"]] <- CreateAssayObject(protein)
cells <- RunPCA(ScaleData(FindVariableFeatures(NormalizeData(cells))), npcs = 30)
DefaultAssay(cells) <- "ADT"
VariableFeatures(cells) <- rownames(cells[["ADT"]])
dims <- min(18, nrow(protein) - 1)
cells <- ScaleData(NormalizeData(cells, normalization.method = "CLR", margin = 2))
cells <- RunPCA(cells, reduction.name = "apca", npcs = dims, approx = FALSE)
dims <- ncol(cells[["apca"]]) # fewer if proteins are constant
cells <- FindMultiModalNeighbors(
  cells, reduction.list = list("pca", "apca"), dims.list = list(1:30, 1:dims), knn.range = min(200, ncol(cells) %/% 2)
)
write_graph(cells@graphs$wsnn)
