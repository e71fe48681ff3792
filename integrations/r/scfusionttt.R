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
  if (is.null(colnames(x)) || anyDuplicated(colnames(x))) {
    stop("cells need unique names, e.g. colnames(x) <- paste(x$Sample, x$Barcode)", call. = FALSE)
  }
  counts <- list("Gene Expression" = raw_counts(rna_part(x, rna), colnames(x), rna))
  if (!is.null(protein)) counts[["Antibody Capture"]] <- raw_counts(protein_part(x, protein), colnames(x), protein)
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
  values <- as.matrix(table[is_dimension(table)]) # map writes p-values and labels, too
  if (!ncol(values)) stop(path, " has no embedding; embed and map write one", call. = FALSE)
  colnames(values) <- paste0(name, "_", seq_len(ncol(values)))
  if (inherits(x, "Seurat")) {
    assay <- if ("RNA" %in% SeuratObject::Assays(x)) "RNA" else SeuratObject::DefaultAssay(x)
    x[[name]] <- SeuratObject::CreateDimReducObject(embeddings = values, key = paste0(name, "_"), assay = assay)
  } else {
    SingleCellExperiment::reducedDim(x, name) <- values
  }
  x
}

# Add a table that `scfusionttt predict`, `annotate`, `map` or `impute` wrote as .csv to the metadata of the cells.
add_cells <- function(x, path, prefix = "fusionttt_") {
  table <- of_cells(x, path)
  table <- table[!is_dimension(table)]
  # the probability of class 1 would be called as the first dimension, which FeaturePlot() shows instead
  names(table) <- sub("^([0-9]+)$", "class_\\1", names(table))
  names(table) <- paste0(prefix, sub("^fusionttt_", "", names(table))) # annotate and map write it, too
  if (inherits(x, "Seurat")) {
    # Seurat does it without `unique`: one of "CD4+ T" and "CD4- T" would replace the other
    names(table) <- make.names(names(table), unique = TRUE)
    return(SeuratObject::AddMetaData(x, table))
  }
  SummarizedExperiment::colData(x)[names(table)] <- table
  x
}

# The rows of a .csv in the order of the cells of x; NA for cells that the file lacks.
of_cells <- function(x, path) {
  # read.csv would take the label T for TRUE, 01 for 1 and the barcode 001 for 1
  table <- utils::read.csv(path, row.names = 1, check.names = FALSE, colClasses = "character", encoding = "UTF-8")
  is_text <- grepl("^(fusionttt_)?(label|ontology_id)$", names(table))
  table[!is_text] <- lapply(table[!is_text], utils::type.convert, as.is = TRUE)
  if (!any(rownames(table) %in% colnames(x))) stop(path, " has none of the cells of the object")
  table <- table[match(colnames(x), rownames(table)), , drop = FALSE]
  rownames(table) <- colnames(x)
  table
}

is_dimension <- function(table) grepl("^fusionttt_[0-9]+$", names(table))

rna_part <- function(x, name) if (inherits(x, "Seurat")) x[[name]] else x

protein_part <- function(x, name) if (inherits(x, "Seurat")) x[[name]] else SingleCellExperiment::altExp(x, name)

# Raw counts of an assay or experiment, [features, cells], sparse by columns; a matrix on disk is read into memory.
raw_counts <- function(part, cells, name) {
  is_experiment <- inherits(part, "SummarizedExperiment")
  counts <- (if (is_experiment) SummarizedExperiment::assay else SeuratObject::GetAssayData)(part, "counts")
  if (!identical(colnames(counts), cells)) stop(name, " has no raw counts of these cells", call. = FALSE)
  if (is.null(rownames(counts))) stop(name, " has no names of features; set rownames", call. = FALSE)
  methods::as(methods::as(counts, "CsparseMatrix"), "generalMatrix")
}

# The first assay or alternative experiment with a usual name of proteins, or NULL.
guess_protein <- function(x) {
  present <- if (inherits(x, "Seurat")) SeuratObject::Assays(x) else SingleCellExperiment::altExpNames(x)
  found <- present[tolower(present) %in% c("adt", "prot", "protein", "antibody capture")]
  if (length(found)) return(found[[1]])
  others <- setdiff(present, "RNA")
  if (length(others)) message("writing RNA alone; to write proteins, set protein to one of: ", toString(others))
  NULL
}

metadata <- function(x) {
  if (inherits(x, "Seurat")) return(x[[]])
  as.data.frame(SummarizedExperiment::colData(x), optional = TRUE) # names of columns stay as they are
}

# A [features, cells] matrix by columns is a [cells, features] matrix by rows: nothing is transposed.
write_matrix <- function(file, counts) {
  group <- file$create_group("X")
  encode(group, "csr_matrix", "0.1.0")
  hdf5r::h5attr(group, "shape") <- rev(dim(counts))
  group$create_dataset("data", counts@x, gzip_level = 4)
  group$create_dataset("indices", counts@i, gzip_level = 4)
  group$create_dataset("indptr", counts@p, gzip_level = 4)
}

# Numbers stay numbers; factors, text and the rest become text, with "" for what is missing. A slash in the name of a
# column, which HDF5 takes for a folder, becomes an underscore; a name that is then taken gets a suffix.
write_table <- function(file, name, table) {
  group <- file$create_group(name)
  encode(group, "dataframe", "0.2.0")
  scalar(group, "_index", "_index")
  names(table) <- make.unique(c("_index", gsub("/", "_", names(table), fixed = TRUE)))[-1]
  order <- if (ncol(table)) names(table) # a table without columns has an empty order, which is not written
  space <- hdf5r::H5S$new("simple", dims = ncol(table), maxdims = ncol(table))
  group$create_attr("column-order", order, dtype = text_type(), space = space)
  write_column(group, "_index", rownames(table))
  for (column in names(table)) write_column(group, column, table[[column]])
}

write_column <- function(group, name, values) {
  is_number <- is.numeric(values)
  if (!is_number) {
    values <- as.character(values)
    values[is.na(values)] <- ""
  } else if (anyNA(values)) {
    values <- as.double(values) # a missing integer would be the smallest one
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
