process SCFUSIONTTT_ANNOTATE {
    tag "$meta.id"
    label 'process_medium'

    conda "${moduleDir}/environment.yml"
    container "scfusionttt:0.1.0" // docker build --tag scfusionttt:0.1.0 . in the repository of scfusionttt

    input:
    tuple val(meta), path(counts)

    output:
    tuple val(meta), path("${prefix}.h5ad"), emit: h5ad
    tuple val("${task.process}"), val('scfusionttt'), eval("scfusionttt --version"), topic: versions, emit: versions_scfusionttt

    when:
    task.ext.when == null || task.ext.when

    script:
    def args = task.ext.args ?: ''
    prefix = task.ext.prefix ?: "${meta.id}_annotated"
    """
    export OMP_NUM_THREADS=$task.cpus

    scfusionttt annotate \\
        $args \\
        $counts \\
        --out ${prefix}.h5ad
    """

    stub:
    prefix = task.ext.prefix ?: "${meta.id}_annotated"
    """
    touch ${prefix}.h5ad
    """
}
