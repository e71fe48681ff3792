# CiteFuse (Kim et al. 2020): the fused similarities of each cell with its 20 most similar ones.
source(file.path(dirname(sub("--file=", "", grep("--file=", commandArgs(), value = TRUE))), "exchange.R"))
suppressMessages(library(CiteFuse))
suppressMessages(library(SingleCellExperiment))

cells <- scuttle::logNormCounts(SingleCellExperiment(list(counts = rna)))
altExp(cells, "ADT") <- SummarizedExperiment(list(counts = protein))
fused <- as.matrix(metadata(CiteFuse(cells))[["SNF_W"]])
diag(fused) <- 0
kept <- t(apply(fused, 1, function(row) ifelse(rank(-row, ties.method = "first") <= 20, row, 0)))
write_graph(Matrix(pmax(kept, t(kept)), sparse = TRUE))
