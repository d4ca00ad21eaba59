# docker build -t nases .
# docker run --rm -v "$PWD:/work" nases search digits      (with a GPU: --gpus all)
#
# The default build of PyTorch has the CUDA libraries. For another one, such as the CPU build, pass the index that
# pytorch.org shows for it: docker build -t nases --build-arg TORCH_INDEX=... .
FROM python:3.12-slim

ARG TORCH_INDEX
RUN pip install --no-cache-dir torch torchvision ${TORCH_INDEX:+--index-url "$TORCH_INDEX"}

COPY . /src
RUN pip install --no-cache-dir "/src[export]" && rm -rf /src

RUN useradd --create-home user
USER user
WORKDIR /work
ENTRYPOINT ["nases"]
CMD ["--help"]
