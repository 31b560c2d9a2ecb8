# docker build -t cdd .
# docker run --rm -v "$PWD:/work" cdd embed graphsage --edges kg.csv --output graphsage.parquet
FROM python:3.13-slim
COPY . /src
# The wheel of torch for the CPU only: without it, pip brings 3 GB of CUDA along.
RUN pip install --no-cache-dir --index-url https://download.pytorch.org/whl/cpu torch==2.13.0 \
    && pip install --no-cache-dir --constraint /src/constraints.txt /src && rm -r /src
WORKDIR /work
ENTRYPOINT ["cdd"]
