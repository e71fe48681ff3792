# scfusionttt for CPUs: docker run --rm --volume "$PWD:/data" scfusionttt annotate rna.h5ad --out annotated.h5ad
FROM python:3.12-slim

# PyTorch without CUDA, which is a quarter of the size; the same version as in the tests.
COPY constraints.txt /tmp/
RUN pip install --no-cache-dir --constraint /tmp/constraints.txt torch --index-url https://download.pytorch.org/whl/cpu

COPY pyproject.toml hatch_build.py README.md LICENSE /tmp/source/
COPY src /tmp/source/src
RUN pip install --no-cache-dir --constraint /tmp/constraints.txt "/tmp/source[explain]" && rm -r /tmp/source

# Compile the CPU kernel once, where every user can use it (Numba wants to write there, too); workflow managers run
# images as a user without a home.
ENV HOME=/tmp NUMBA_CACHE_DIR=/opt/numba MPLCONFIGDIR=/tmp
RUN scfusionttt doctor && chmod -R a+rwX /opt/numba

WORKDIR /data
ENTRYPOINT ["scfusionttt"]
