# Runs a script beside this one in a folder. Arguments: that script, the script of the functions, the folder, and a step.
suppressMessages({
  library(SeuratObject)
  library(SingleCellExperiment)
})
arguments <- commandArgs(trailingOnly = TRUE)
step <- arguments[4] # NA without one
source(arguments[[2]])
setwd(arguments[[3]])
source(arguments[[1]])
