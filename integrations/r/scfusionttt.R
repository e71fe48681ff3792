# Seurat objects and SingleCellExperiments to a file that scfusionttt reads, and its results back into them.
#
#   source("scfusionttt.R")                      # needs hdf5r and Matrix
#   write_citeseq(pbmc, "pbmc.h5ad")
#   system("scfusionttt pretrain pbmc.h5ad --out model && scfusionttt embed pbmc.h5ad --model model --out fused.csv")
#   pbmc <- add_embedding(pbmc, "fused.csv")

# Write raw counts of RNA and proteins, and the metadata of the cells, as .h5ad.
#
# x              Seurat object or SingleCellExperiment
# path           file to write; it is replaced
# rna            assay of the RNA (Seurat); of a SingleCellExperiment it is the main experiment
# protein        assay (Seurat) or alternative experiment of the proteins; NULL: RNA alone
write_citeseq <- function(x, path, rna = "RNA", protein = guess_protein(x)) {
  counts <- list("Gene Expression" = rna_counts(x, rna))
  if (!is.null(protein)) counts[["Antibody Capture"]] <- protein_counts(x, protein)
  stopifnot(all(vapply(counts, function(part) identical(colnames(part), colnames(x)), logical(1))))
  features <- data.frame(feature_types = rep(names(counts), vapply(counts, nrow, integer(1))))
  # A gene and an antibody may share a name; the index of .h5ad is unique.
  rownames(features) <- make.unique(unlist(lapply(counts, rownames), use.names = FALSE))

  file <- hdf5r::H5File$new(path, mode = "w")
  on.exit(file$close_all())
  encode(file, "anndata", "0.1.0")
  write_matrix(file, do.call(rbind, unname(counts)))
  write_table(file, "obs", metadata(x))
  write_table(file, "var", features)
  invisible(path)
}

# Add an embedding that `scfusionttt embed` or `map` wrote as .csv, for FindNeighbors(), runUMAP() and the like.
add_embedding <- function(x, path, name = "fusionttt") {
  table <- of_cells(x, path)
  values <- as.matrix(table[grepl("^fusionttt_[0-9]+$", names(table))]) # map writes p-values and labels, too
  colnames(values) <- paste0(name, "_", seq_len(ncol(values)))
  if (inherits(x, "Seurat")) {
    x[[name]] <- SeuratObject::CreateDimReducObject(embeddings = values, key = paste0(name, "_"))
  } else {
    SingleCellExperiment::reducedDim(x, name) <- values
  }
  x
}

# Add a table that `scfusionttt predict`, `annotate` or `impute` wrote as .csv to the metadata of the cells.
add_cells <- function(x, path, prefix = "fusionttt_") {
  table <- of_cells(x, path)
  names(table) <- paste0(prefix, names(table))
  if (inherits(x, "Seurat")) return(SeuratObject::AddMetaData(x, table))
  SummarizedExperiment::colData(x)[names(table)] <- table
  x
}

# The rows of a .csv in the order of the cells of x; NA for cells that the file lacks.
of_cells <- function(x, path) {
  table <- utils::read.csv(path, row.names = 1, check.names = FALSE)
  if (!any(rownames(table) %in% colnames(x))) stop(path, " has none of the cells of the object")
  table <- table[match(colnames(x), rownames(table)), , drop = FALSE]
  rownames(table) <- colnames(x)
  table
}

rna_counts <- function(x, rna) {
  if (inherits(x, "Seurat")) SeuratObject::GetAssayData(x[[rna]], "counts") else SummarizedExperiment::assay(x, "counts")
}

protein_counts <- function(x, protein) {
  if (inherits(x, "Seurat")) return(SeuratObject::GetAssayData(x[[protein]], "counts"))
  SummarizedExperiment::assay(SingleCellExperiment::altExp(x, protein), "counts")
}

# The first assay or alternative experiment with a usual name of proteins, or NULL.
guess_protein <- function(x) {
  present <- if (inherits(x, "Seurat")) SeuratObject::Assays(x) else SingleCellExperiment::altExpNames(x)
  found <- present[tolower(present) %in% c("adt", "prot", "protein", "antibody capture")]
  if (length(found)) found[[1]] else NULL
}

metadata <- function(x) if (inherits(x, "Seurat")) x[[]] else as.data.frame(SummarizedExperiment::colData(x))

# A [features, cells] matrix by columns is a [cells, features] matrix by rows: nothing is transposed.
write_matrix <- function(file, counts) {
  counts <- methods::as(methods::as(counts, "CsparseMatrix"), "generalMatrix")
  group <- file$create_group("X")
  encode(group, "csr_matrix", "0.1.0")
  hdf5r::h5attr(group, "shape") <- rev(dim(counts))
  group$create_dataset("data", counts@x, gzip_level = 4)
  group$create_dataset("indices", counts@i, gzip_level = 4)
  group$create_dataset("indptr", counts@p, gzip_level = 4)
}

# Numbers stay numbers; factors, text and the rest become text, with "" for what is missing.
write_table <- function(file, name, table) {
  group <- file$create_group(name)
  encode(group, "dataframe", "0.2.0")
  scalar(group, "_index", "_index")
  hdf5r::h5attr(group, "column-order") <- names(table)
  write_column(group, "_index", rownames(table))
  for (column in names(table)) write_column(group, column, table[[column]])
}

write_column <- function(group, name, values) {
  is_number <- is.numeric(values)
  if (!is_number) {
    values <- as.character(values)
    values[is.na(values)] <- ""
  }
  type <- if (is_number) NULL else text_type()
  dataset <- group$create_dataset(name, values, dtype = type, chunk_dims = if (is_number) "auto" else NULL)
  encode(dataset, if (is_number) "array" else "string-array", "0.2.0")
}

encode <- function(object, type, version) {
  scalar(object, "encoding-type", type)
  scalar(object, "encoding-version", version)
}

scalar <- function(object, name, value) {
  object$create_attr(name, value, dtype = text_type(), space = hdf5r::H5S$new("scalar"))
}

text_type <- function() hdf5r::H5T_STRING$new(size = Inf)$set_cset("UTF-8")
